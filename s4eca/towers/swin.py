"""Swin and Swin V2 of timm as a tower: four stages, one step per block."""

from collections.abc import Mapping
from typing import Any

from timm.models import swin_transformer, swin_transformer_v2
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn

from s4eca.errors import S4ecaError
from s4eca.towers.base import State, Step, Tap
from s4eca.towers.timm_tower import TimmTower, check_multiple, plain, set_attention
from s4eca.weights import BaseWeights, describe_source, hash_weights, load_timm


class SwinTower(TimmTower):
    """A frozen timm Swin Transformer.

    timm downsamples at the start of stages 2-4, so the first step of those stages does it; the grids that `end` returns
    are the outputs of each stage's last block, not normalised. At 480 px timm rolls before it pads where LAVT pads
    before it rolls, which changes stage 4's values, not their meaning.

    Args:
        name: timm model name with its tag.
        weights: `hub`, `hf:OWNER/REPO/FILE`, `random`, or a path (see `s4eca.weights`).
        seed: of random weights.
        image_size: side of the square input in pixels; the window size stays the model's own.
        options: further fields of the model, for example `embed_dim`, `depths`, `num_heads`, `drop_path_rate`.
        attention: `eager` as timm has it, or `sdpa` (see `set_attention`), which Swin V2 does not have.

    Raises:
        S4ecaError: `name` is no Swin, or the weights cannot be resolved.
    """

    mlp_layers = ("mlp.fc1", "mlp.fc2")

    def __init__(
        self,
        name: str = "swin_base_patch4_window12_384.ms_in22k",
        weights: str = "hub",
        seed: int = 0,
        image_size: int = 480,
        options: Mapping[str, Any] | None = None,
        attention: str = "eager",
    ) -> None:
        super().__init__()
        self.family = "swinv2" if name.startswith("swinv2_") else "swin"
        # timm's Swin V2 takes the weight of qkv past the layer, so that what replaces the layer is never called
        self.attention_layers = ("attn.proj",) if self.family == "swinv2" else ("attn.qkv", "attn.proj")
        if not name.startswith(("swin_", "swinv2_")) or name.startswith("swinv2_cr"):
            raise S4ecaError(f"vision.name={name} is no Swin model; take a name like swin_base_* or swinv2_base_*.")
        source = swin_transformer_v2 if self.family == "swinv2" else swin_transformer
        options = {"drop_path_rate": 0.0, **plain(options)}
        self.model = load_timm(
            "vision",
            name,
            weights,
            seed,
            source.checkpoint_filter_fn,
            unused=("norm", "head"),  # only the last stage would use the norm; the segmenter norms every stage
            img_size=image_size,
            **options,
        )
        self.base = BaseWeights(name, describe_source(weights, seed), hash_weights(self.model.state_dict()))
        self.image_size = image_size
        self.widths = [info["num_chs"] for info in self.model.feature_info]
        blocks = [(stage, block) for stage, layer in enumerate(self.model.layers) for block in range(len(layer.blocks))]
        self._places = blocks
        patch = self.model.patch_embed.patch_size[0]
        check_multiple(image_size, patch, name, "the patch size")
        sides = [-(-image_size // (patch * 2**stage)) for stage in range(len(self.widths))]
        self.steps = [
            Step(
                "vision",
                index,
                stage,
                self.widths[stage],
                ends_stage=blocks[index + 1 :][:1] != [(stage, block + 1)],
                grid=(sides[stage], sides[stage]),
            )
            for index, (stage, block) in enumerate(blocks)
        ]
        set_attention(self, name, attention)
        self.take_statistics()
        self.freeze()

    def block(self, index: int) -> nn.Module:
        """Returns the timm block behind a step."""
        stage, block = self._places[index]
        return self.model.layers[stage].blocks[block]

    def embed(self, pixels: Tensor) -> State:
        """Cuts (B, 3, S, S) normalised pixels into patches: hidden (B, S/4, S/4, C_1)."""
        return State(self.model.patch_embed(pixels))

    def step(self, index: int, state: State, tap: Tap) -> State:
        """Runs one block on (B, H, W, C), downsampling before it where it is the first of a later stage."""
        step = self.steps[index]
        block: Any = self.block(index)
        x = state.hidden
        if self._places[index][1] == 0:
            x = self.model.layers[step.stage].downsample(x)
        x = tap("in", x)
        if isinstance(self.model, SwinTransformerV2):  # norms after the branches
            x = tap("mid", x + block.drop_path1(tap("attn", block.norm1(block._attn(x)), x)))
            x = x + block.drop_path2(tap("mlp", _on_tokens(block.mlp, block.norm2, x), x))
        else:
            normed = block.norm1(x)
            x = tap("mid", x + block.drop_path1(tap("attn", block._attn(normed), normed)))
            normed = block.norm2(x)
            x = x + block.drop_path2(tap("mlp", _on_tokens(block.mlp, nn.Identity(), normed), normed))
        x = tap("out", x)
        if step.ends_stage:
            x = tap("stage_out", x)
        return State(x)

    def end(self, stage_states: list[State]) -> list[Tensor]:
        """Returns the stage outputs (B, S/4, S/4, C_1) to (B, S/32, S/32, C_4)."""
        return [state.hidden for state in stage_states]


def _on_tokens(mlp: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """Runs the MLP on (B, HW, C) as timm does: another shape may choose another matrix kernel and change last bits."""
    return norm(mlp(x.reshape(x.shape[0], -1, x.shape[-1]))).reshape(x.shape)
