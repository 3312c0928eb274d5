"""Where given weights lie on this machine, and how a file of them is read."""

from pathlib import Path

import huggingface_hub
import torch
from timm.models import load_state_dict
from torch import Tensor, nn

from s4eca.errors import S4ecaError

HUB, RANDOM, HUB_FILE = "hub", "random", "hf:"


class SizesUnknownError(S4ecaError):
    """Nothing on this machine says yet how large a model is."""


def is_hollow() -> bool:
    """Whether models are built on the meta device: with shapes and no values, so that no weights are read."""
    return torch.get_default_device().type == "meta"


def describe_source(weights: str, seed: int) -> str:
    """Returns how a checkpoint names the source; of a path only its last part, which travels between machines."""
    if weights == RANDOM:
        return f"random:{seed}"
    return weights if weights == HUB or weights.startswith(HUB_FILE) else Path(weights).name


def fetch(key: str, weights: str) -> Path:
    """Returns where given weights lie on this machine, after fetching them where they are `hf:OWNER/REPO/FILE`.

    On the meta device nothing is fetched.

    Args:
        key: config key of the tower, for the error's remedy (`text`, `vision`).
        weights: a path, or `hf:` and a file of a hub repository, for example
            `hf:chendelong/RemoteCLIP/RemoteCLIP-ViT-B-32.pt`; a copy that was fetched before is used without a network.

    Raises:
        S4ecaError: an incomplete `hf:`, an unreachable hub, or a missing path.
        SizesUnknownError: on the meta device, a file that was not fetched before.
    """
    if not weights.startswith(HUB_FILE):
        if not Path(weights).exists():
            raise S4ecaError(_no_path(key, weights, "a weights file or a folder with one"))
        return Path(weights)
    repository, file = split_hub_file(key, weights)
    try:
        return Path(huggingface_hub.hf_hub_download(repository, file, local_files_only=is_hollow()))
    except Exception as error:  # the hub client raises OSError, httpx and its own errors
        if is_hollow():
            raise SizesUnknownError(f"{weights} was not fetched yet.") from error
        raise S4ecaError(unreachable(key, weights.removeprefix(HUB_FILE), error)) from error


def split_hub_file(key: str, weights: str) -> tuple[str, str]:
    """Returns repository and file of `hf:OWNER/REPO/FILE`.

    Raises:
        S4ecaError: a part of it is missing.
    """
    owner, _, rest = weights.removeprefix(HUB_FILE).partition("/")
    repository, _, file = rest.partition("/")
    if not (owner and repository and file):
        raise S4ecaError(f"{key}.weights={weights} names no file of a hub repository; write hf:OWNER/REPO/FILE.")
    return f"{owner}/{repository}", file


def read_state(path: Path, values: bool = True) -> dict[str, Tensor]:
    """Reads a state dict from a file or a folder, never unpickling anything but tensors.

    Without its values it costs no memory, but for a `.safetensors` file, which is read as it is.
    """
    file = _weights_file(path) if path.is_dir() else path
    device = "cpu" if values or file.suffix == ".safetensors" else "meta"
    try:
        state = load_state_dict(str(file), weights_only=True, device=device)
    except Exception as error:  # pickle, safetensors and torch each raise their own
        raise S4ecaError(f"{path} could not be read as weights ({first_line(error)}).") from error
    return dict(state)


def _weights_file(folder: Path) -> Path:
    """Returns the weights file that `save_for_hf` or `save_pretrained` put into a folder."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise S4ecaError(f"{folder} holds neither model.safetensors nor pytorch_model.bin; give the weights file itself.")


def fill(model: nn.Module, state: dict[str, Tensor], key: str, name: str, weights: str) -> None:
    """Loads strictly: nothing of the model may stay random."""
    where = name if weights == HUB else weights
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise S4ecaError(f"the weights in {where} do not fit {key}.name={name} ({first_line(error)}).") from error
    if result.missing_keys or result.unexpected_keys:
        which = (result.missing_keys or result.unexpected_keys)[0]
        raise S4ecaError(
            f"the weights in {where} do not fit {key}.name={name}: {len(result.missing_keys)} missing, "
            f"{len(result.unexpected_keys)} unexpected, for example {which}; give weights of that architecture."
        )


def unreachable(key: str, name: str, error: Exception) -> str:
    """Returns the error of a hub that did not give a model's weights."""
    return (
        f"the weights of {name} could not be fetched from the hub ({first_line(error)}); where there is no network, "
        "set weights_folder=FOLDER to what `s4eca weights fetch out=FOLDER` wrote where there is one, give a local "
        f"copy with {key}.weights=PATH, or ask for untrained ones with {key}.weights=random."
    )


def _no_path(key: str, weights: str, expected: str) -> str:
    return f"{key}.weights={weights} does not exist; give {expected}, 'hub', or 'random'."


def first_line(error: Exception) -> str:
    """Returns what another library's error says in one line, without its full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if len(lines) < 2 or not lines[0].endswith(":") else f"{lines[0]} {lines[1]}").rstrip(".")
