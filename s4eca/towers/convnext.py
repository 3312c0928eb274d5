"""ConvNeXt and ConvNeXt V2 of timm as a tower: four stages, one step per block."""

from collections.abc import Mapping
from typing import Any

from timm.models import convnext
from torch import Tensor, nn

from s4eca.errors import S4ecaError
from s4eca.towers.base import Site, State, Step, Tap
from s4eca.towers.timm_tower import TimmTower, check_multiple, linear_layers, plain, set_attention
from s4eca.weights import BaseWeights, describe_source, hash_weights, load_timm

CONVNEXT_SITES: tuple[Site, ...] = ("in", "mlp", "out", "stage_out")


class ConvNextTower(TimmTower):
    """A frozen timm ConvNeXt (Liu et al., CVPR 2022) or ConvNeXt V2 (Woo et al., CVPR 2023).

    A block is one branch: depthwise convolution, norm, MLP, layer scale. It has no attention, so the sites `attn` and
    `mid` are not visited; `mlp` sees the branch after layer scale, and what enters the MLP as its input. Later stages
    downsample before their first block, so the first step of those stages does it; the grids that `end` returns are
    the outputs of each stage's last block, not normalised.

    Args:
        name: timm model name with its tag.
        weights: `hub`, `hf:OWNER/REPO/FILE`, `random`, or a path (see `s4eca.weights`).
        seed: of random weights.
        image_size: side of the square input in pixels, a multiple of the last stage's stride (32).
        options: further fields of the model, for example `depths`, `dims`, `drop_path_rate`.
        attention: `eager`; there is none that could be fused.

    Raises:
        S4ecaError: `name` is no ConvNeXt, the size does not fit, or the weights cannot be resolved.
    """

    family = "convnext"

    def __init__(
        self,
        name: str = "convnext_base.fb_in22k_ft_in1k_384",
        weights: str = "hub",
        seed: int = 0,
        image_size: int = 480,
        options: Mapping[str, Any] | None = None,
        attention: str = "eager",
    ) -> None:
        super().__init__()
        if not name.startswith(("convnext_", "convnextv2_")):
            raise S4ecaError(
                f"vision.name={name} is no ConvNeXt model; take a name like convnext_base.* or convnextv2_base.*."
            )
        check_multiple(image_size, plain(options).get("output_stride", 32), name, "the stride of the last stage")
        self.model = load_timm(
            "vision",
            name,
            weights,
            seed,
            convnext.checkpoint_filter_fn,
            unused=("norm_pre", "head"),  # only a classifier would use them; the segmenter norms every stage
            **plain(options),
        )
        self.base = BaseWeights(name, describe_source(weights, seed), hash_weights(self.model.state_dict()))
        self.image_size = image_size
        self.widths = [info["num_chs"] for info in self.model.feature_info]
        depths = [len(stage.blocks) for stage in self.model.stages]
        sides = [image_size // info["reduction"] for info in self.model.feature_info]
        self._places = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
        self.steps = [
            Step(
                "vision",
                index,
                stage,
                self.widths[stage],
                ends_stage=block == depths[stage] - 1,
                sites=CONVNEXT_SITES,
                grid=(sides[stage], sides[stage]),
            )
            for index, (stage, block) in enumerate(self._places)
        ]
        # the small models (atto to nano) have 1x1 convolutions there instead
        self.mlp_layers = linear_layers(self.block(0), "mlp")
        set_attention(self, name, attention)
        self.take_statistics()
        self.freeze()

    def block(self, index: int) -> nn.Module:
        """Returns the timm block behind a step."""
        stage, block = self._places[index]
        return self.model.stages[stage].blocks[block]

    def embed(self, pixels: Tensor) -> State:
        """Cuts (B, 3, S, S) normalised pixels into patches: hidden (B, S/4, S/4, C_1)."""
        return State(_nhwc(self.model.stem(pixels)))

    def step(self, index: int, state: State, tap: Tap) -> State:
        """Runs one block on (B, H, W, C), downsampling before it where it is the first of a later stage.

        The grid is a view of timm's (B, C, H, W), so that convolutions meet the strides, and kernels, of timm's walk.
        """
        step = self.steps[index]
        block: Any = self.block(index)
        x = state.hidden
        if self._places[index][1] == 0:
            x = _nhwc(self.model.stages[step.stage].downsample(_nchw(x)))
        x = tap("in", x)
        if block.use_conv_mlp:
            normed = _nhwc(block.norm(block.conv_dw(_nchw(x))))
            branch = _nhwc(block.mlp(_nchw(normed)))
        else:
            normed = block.norm(_nhwc(block.conv_dw(_nchw(x))))
            branch = block.mlp(normed)
        if block.gamma is not None:
            branch = branch * block.gamma
        x = tap("out", block.drop_path(tap("mlp", branch, normed)) + x)
        if step.ends_stage:
            x = tap("stage_out", x)
        return State(x)

    def end(self, stage_states: list[State]) -> list[Tensor]:
        """Returns the stage outputs (B, S/4, S/4, C_1) to (B, S/32, S/32, C_4)."""
        return [state.hidden for state in stage_states]


def _nhwc(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _nchw(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)
