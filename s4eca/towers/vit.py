"""Plain vision transformers of timm as a tower: DINOv2, CLIP and ordinary ViT, and DINOv3 with rotary positions."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.models import eva, is_model_in_modules, vision_transformer
from torch import Tensor, nn
from torch.nn import functional as F

from s4eca.errors import S4ecaError
from s4eca.towers.base import State, Step, Tap, to_grid
from s4eca.towers.timm_tower import TimmTower, check_multiple, linear_layers, plain, set_attention
from s4eca.weights import BaseWeights, describe_source, hash_weights, load_timm

STAGES = 4
SCALES = (4, 2, 1, 0.5)

# options of timm that would change the tokens, or their positions, from one call to the next or away from `grid`
REFUSED = (
    "img_size",
    "dynamic_img_size",
    "dynamic_img_pad",
    "patch_drop_rate",
    "rope_type",
    "rope_shift_coords",
    "rope_jitter_coords",
    "rope_rescale_coords",
)


class ViTTower(TimmTower):
    """A frozen plain vision transformer (Dosovitskiy et al., ICLR 2021) with a pyramid made of four depths.

    Tokens stay tokens inside, (B, P + HW, C) with P leading ones (class token, registers); a stage is a quarter of the
    blocks, the first ones longer where four does not divide the depth. The family is `dinov3` for DINOv3 (Siméoni et
    al., arXiv 2508.10104; timm's class Eva), whose pixels' queries and keys are rotated by position in every block, and
    `vit` for all others.

    The pyramid has strides p/4, p/2, p and 2p for patches of p pixels, unless `scales` says otherwise. It follows
    ViTDet's simple feature pyramid (Li et al., arXiv 2203.16527, section 3) in those strides and departs from it twice:
    ViTDet learns deconvolutions, and here nothing in a tower is learned, so the grids are resized bilinearly (x4, x2)
    and by 2x2 means (x1/2; an odd last row or column is averaged alone); ViTDet takes all levels from the last block,
    and here each comes from its own quarter, fine to coarse, as BEiT's segmentation does (Bao et al., ICLR 2022), so
    that a tuning method has stages to act in. The model's final norm is left out: timm would apply it to the last block
    alone by default, and the segmenter norms every stage.

    Args:
        name: timm model name with its tag, `vit_*_patchN_*`.
        weights: `hub`, `hf:OWNER/REPO/FILE`, `random`, or a path (see `s4eca.weights`); an open_clip checkpoint, as
            RemoteCLIP and GeoRSCLIP are, gives its `visual.*` part.
        seed: of random weights.
        image_size: side of the square input in pixels, a multiple of the patch size; learned position embeddings are
            resized to it by timm when the weights are loaded.
        options: further fields of the model, for example `embed_dim`, `depth`, `num_heads`, `drop_path_rate`.
        attention: `sdpa` as timm has it, or `eager` (see `set_attention`).
        scales: how many times the tokens' rows and columns each level of the pyramid has, fine to coarse: 4, 2, 1 or
            0.5. What the decoder costs is decided here: with [2, 1, 1, 1] its finest level has a quarter of the places.

    Raises:
        S4ecaError: `name` is no such model, the size or the scales do not fit, or the weights cannot be resolved.
    """

    takes_tokens = True

    def __init__(
        self,
        name: str = "vit_base_patch14_reg4_dinov2.lvd142m",
        weights: str = "hub",
        seed: int = 0,
        image_size: int = 476,
        options: Mapping[str, Any] | None = None,
        attention: str = "sdpa",
        scales: Sequence[float] = SCALES,
    ) -> None:
        super().__init__()
        if len(scales) != STAGES or any(scale not in SCALES for scale in scales) or sorted(scales)[::-1] != [*scales]:
            raise S4ecaError(
                f"vision.scales={[*scales]} must be {STAGES} numbers out of {', '.join(map(str, SCALES))}, none larger "
                "than the one before."
            )
        self.scales = list(scales)
        self.family = "dinov3" if "dinov3" in name else "vit"
        patch, settings = _patch_size(name), plain(options)
        patch = settings.get("patch_size", patch)
        for option in REFUSED:
            if option in settings:
                raise S4ecaError(
                    f"vision.options.{option} would change the tokens behind the back of the tuning methods; leave it "
                    "out (the size is vision.image_size)."
                )
        check_multiple(image_size, patch, name, "the patch size")
        source = eva if self.family == "dinov3" else vision_transformer
        self.model = load_timm(
            "vision",
            name,
            weights,
            seed,
            source.checkpoint_filter_fn,
            unused=("norm", "fc_norm", "attn_pool", "head"),
            img_size=image_size,
            dynamic_img_size=False,
            **settings,
        )
        depth = len(self.model.blocks)
        if type(self.model.blocks[0]) not in (vision_transformer.Block, eva.EvaBlock) or depth < STAGES:
            raise S4ecaError(
                f"vision.name={name} has {depth} blocks of {type(self.model.blocks[0]).__name__}, and this tower walks "
                f"at least {STAGES} pre-norm blocks in a row; take another vit_*."
            )
        self.base = BaseWeights(name, describe_source(weights, seed), hash_weights(self.model.state_dict()))
        self.image_size = image_size
        self.widths = [self.model.embed_dim] * STAGES
        self._ends = [-(-depth * part // STAGES) - 1 for part in range(1, STAGES + 1)]
        self.steps = [
            Step(
                "vision",
                index,
                sum(end < index for end in self._ends),
                self.model.embed_dim,
                ends_stage=index in self._ends,
                grid=(image_size // patch, image_size // patch),
                prefix=self.model.num_prefix_tokens,
            )
            for index in range(depth)
        ]
        self.attention_layers = _called(self.block(0), linear_layers(self.block(0), "attn"))
        self.mlp_layers = linear_layers(self.block(0), "mlp")
        set_attention(self, name, attention)
        self.take_statistics()
        self.freeze()

    def block(self, index: int) -> nn.Module:
        """Returns the timm block behind a step."""
        return self.model.blocks[index]

    def embed(self, pixels: Tensor) -> State:
        """Cuts (B, 3, S, S) normalised pixels into patches and adds positions: hidden (B, P + HW, C)."""
        tokens = self.model._pos_embed(self.model.patch_embed(pixels))
        tokens = tokens[0] if self.family == "dinov3" else tokens  # there beside the rotary table
        return State(self.model.norm_pre(tokens))

    def step(self, index: int, state: State, tap: Tap) -> State:
        """Runs one block on (B, P + HW, C), or on a longer sequence while a tap has put in tokens."""
        step = self.steps[index]
        block: Any = self.block(index)
        x = tap("in", state.hidden)
        normed = block.norm1(x)
        branch = block.attn(normed, **self._rotations(step, x.shape[1]))
        x = tap("mid", x + block.drop_path1(tap("attn", _scaled(block, 1, branch), normed)))
        normed = block.norm2(x)
        x = x + block.drop_path2(tap("mlp", _scaled(block, 2, block.mlp(normed)), normed))
        x = tap("out", x)
        if step.ends_stage:
            x = tap("stage_out", x)
        return State(x)

    def end(self, stage_states: list[State]) -> list[Tensor]:
        """Returns grids (B, H_i, W_i, C) of `scales` times the tokens' rows and columns."""
        grids = [
            to_grid(state.hidden, self.steps[end])[1].permute(0, 3, 1, 2)
            for state, end in zip(stage_states, self._ends, strict=True)
        ]
        return [_scale(grid, scale).permute(0, 2, 3, 1) for grid, scale in zip(grids, self.scales, strict=True)]

    def _rotations(self, step: Step, length: int) -> dict[str, Tensor]:
        """Returns the rotary table that a block of DINOv3 takes: (tokens after the prefix, 2 D), sine then cosine.

        timm's attention leaves the first `prefix` tokens alone and rotates all others, so tokens that a tap has put
        behind the prefix get rotations by zero.
        """
        if self.family != "dinov3":
            return {}
        rope = self.model.rope.get_embed()
        added = length - step.prefix - rope.shape[0]
        if added:
            still = torch.zeros(added, rope.shape[1], dtype=rope.dtype, device=rope.device)
            still[:, rope.shape[1] // 2 :] = 1
            rope = torch.cat([still, rope])
        return {"rope": rope}


def _patch_size(name: str) -> int:
    """Returns N of a plain ViT's `vit_*_patchN_*`.

    Raises:
        S4ecaError: it is none.
    """
    patch = re.match(r"vit_.*_patch(\d+)_", name)
    module = "eva" if "dinov3" in name else "vision_transformer"
    # timm resizes the position embeddings of RADIO in another way than those of all others
    if patch is None or not is_model_in_modules(name, module) or "_radio_" in name:
        raise S4ecaError(
            f"vision.name={name} is no plain vision transformer; take a name like vit_base_patch14_reg4_dinov2.*, "
            "vit_base_patch16_dinov3.* or vit_base_patch32_clip_*."
        )
    return int(patch[1])


def _scale(grid: Tensor, scale: float) -> Tensor:
    """Resizes (B, C, H, W) by one of `SCALES`."""
    if scale == 0.5:
        return F.avg_pool2d(grid, 2, ceil_mode=True, count_include_pad=False)
    return grid if scale == 1 else F.interpolate(grid, scale_factor=scale, mode="bilinear", align_corners=False)


def _called(block: nn.Module, layers: tuple[str, ...]) -> tuple[str, ...]:
    """Leaves out qkv where timm's Eva takes its weight past the layer: what replaces the layer is never called."""
    attention: Any = block.get_submodule("attn")
    past = getattr(attention, "q_bias", None) is not None and not attention.qkv_bias_separate
    return tuple(layer for layer in layers if not (past and layer == "attn.qkv"))


def _scaled(block: Any, branch: int, x: Tensor) -> Tensor:
    """Applies a branch's layer scale, a module in timm's ViT and a parameter in its Eva."""
    if isinstance(block, vision_transformer.Block):
        return getattr(block, f"ls{branch}")(x)
    gamma = getattr(block, f"gamma_{branch}")
    return x if gamma is None else gamma * x
