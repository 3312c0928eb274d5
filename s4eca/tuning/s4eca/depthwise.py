"""Depth-wise convolution whose weight gradient is quick on CPUs as well."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# oneDNN has a depth-wise kernel for weight gradients up to this many columns; beyond, it takes a dense one (x 10 to 40)
COLUMNS = 3


def depthwise(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """Runs a depth-wise layer (odd square kernel, stride 1, same size) on (B, R, H, W).

    On other devices, and for kernels that oneDNN handles well, this is the layer itself.
    """
    if x.device.type == "cpu" and layer.kernel_size[0] > COLUMNS:
        return _Depthwise.apply(x, layer.weight, layer.bias)
    return layer(x)


class _Depthwise(torch.autograd.Function):
    """The same convolution; the weight's gradient is put together from strips of a few columns."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grads[0]
        x, weight = x.to(grad.dtype), weight.to(grad.dtype)  # under autocast they were kept as they came
        for_x, for_weight, for_bias = None, None, None
        kernel = weight.shape[-1]
        edge = kernel // 2
        if ctx.needs_input_grad[0]:
            for_x = _gradients(grad, x, weight, (edge, edge), (True, False))[0]
        if ctx.needs_input_grad[1]:
            padded, strips = F.pad(x, (edge, edge, 0, 0)), []
            for first in range(0, kernel, COLUMNS):
                strip = weight[..., first : first + COLUMNS]
                window = padded[..., first : first + x.shape[-1] + strip.shape[-1] - 1]
                strips.append(_gradients(grad, window, strip, (edge, 0), (False, True))[1])
            for_weight = torch.cat(strips, dim=-1)
        if ctx.needs_input_grad[2]:
            for_bias = grad.sum(dim=(0, 2, 3))
        return for_x, for_weight, for_bias


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int], wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """The gradients of input and weight of a depth-wise convolution, None where they are not wanted."""
    for_x, for_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], list(padding), [1, 1], False, [0, 0], weight.shape[0], [*wanted, False]
    )
    return for_x, for_weight
