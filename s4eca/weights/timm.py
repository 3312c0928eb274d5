"""Models of timm with their weights."""

from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
from timm.models import load_state_dict_from_hf
from torch import nn

from s4eca.errors import S4ecaError
from s4eca.weights.sources import HUB, HUB_FILE, RANDOM, fetch, fill, first_line, is_hollow, read_state, unreachable


def load_timm(
    key: str,
    name: str,
    weights: str,
    seed: int,
    filter_fn: Callable[[dict, nn.Module], dict],
    unused: Sequence[str] = ("head",),
    **options: Any,
) -> nn.Module:
    """Builds a timm model without a classifier and fills it.

    Args:
        key: config key of the tower, for the error's remedy (`vision`).
        name: timm model name with its tag, for example `swin_base_patch4_window12_384.ms_in22k`.
        weights: `hub`, `hf:OWNER/REPO/FILE`, `random`, or a path to a `.safetensors`/`.pth`/`.pt` file or a folder that
            `save_for_hf` wrote.
        seed: of the random weights.
        filter_fn: the family's `checkpoint_filter_fn`, which renames keys, resizes bias tables and position embeddings,
            and takes the image part (`visual.*`) out of a CLIP checkpoint.
        unused: parts of the model that the tower does not walk; they are taken out, their weights are not asked for.
        options: passed on to `timm.create_model`.

    Raises:
        S4ecaError: unknown name, unreachable hub, missing path, or weights that do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = timm.create_model(name, pretrained=False, num_classes=0, **options)
        except (RuntimeError, TypeError, AssertionError, ValueError) as error:
            raise S4ecaError(f"timm cannot build {key}.name={name} with {options}: {error}.") from error
    hub_id = model.pretrained_cfg.get("hf_hub_id")
    if weights == HUB and not hub_id:
        raise S4ecaError(f"timm has no hub weights for {name}; give a local file with {key}.weights=PATH.")
    if is_hollow() and weights not in (HUB, RANDOM) and not weights.startswith(HUB_FILE):
        fetch(key, weights)  # which has to be there
    if weights == RANDOM or is_hollow():
        _take_out(model, unused)
        return model
    if weights == HUB:
        file = model.pretrained_cfg.get("hf_hub_filename")
        try:
            state = load_state_dict_from_hf(hub_id, **({"filename": file} if file else {}), weights_only=True)
        except Exception as error:  # the hub client raises OSError, httpx and its own errors
            raise S4ecaError(unreachable(key, name, error)) from error
    else:
        state = read_state(fetch(key, weights))
    first = next(iter(state), "nothing")
    try:
        state = filter_fn(state, model)
    except Exception as error:  # of a file that is none of the family's
        raise S4ecaError(
            f"the weights in {weights} do not fit {key}.name={name} ({first_line(error)}); give weights of that "
            "architecture."
        ) from error
    if not state.keys() & model.state_dict().keys():
        raise S4ecaError(
            f"the weights in {weights} have no image part for {key}.name={name}: neither timm's names nor the visual.* "
            f"of a CLIP checkpoint, its first being {first}; give a file that has one."
        )
    _take_out(model, unused)
    fill(model, {k: v for k, v in state.items() if k.partition(".")[0] not in unused}, key, name, weights)
    return model


def _take_out(model: nn.Module, unused: Sequence[str]) -> None:
    for part in unused:
        setattr(model, part, nn.Identity())
