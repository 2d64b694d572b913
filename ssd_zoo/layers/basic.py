"""Layers that heads and backbones share."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssd_zoo.layers.plain import AsMade, has_global_hooks, is_plain, is_watched

__all__ = [
    "RELU",
    "RELU6",
    "BatchNorm2d",
    "Conv2dSame",
    "ConvNormAct",
    "L2Norm",
    "MaxPool2dSame",
    "NormLayer",
    "init_conv",
    "pad_same",
]

NormLayer = Callable[[int], nn.Module]
RELU, RELU6 = partial(nn.ReLU, inplace=True), partial(nn.ReLU6, inplace=True)


def init_conv(conv: nn.Conv2d, init: Callable[[Tensor], object]) -> None:
    """Initialise a convolution's kernel by `init` and its bias by zero; nothing on the meta device."""
    # There is nothing to initialise on the meta device, where torch takes 8 ms for each normal distribution.
    if conv.weight.is_meta:
        return
    init(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that also trains on a single value per channel.

    The last map of an SSD is 1 × 1, so a batch of one image has no statistics there. PyTorch raises an error in that
    case. This layer uses the running statistics, as in evaluation.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


def fold_norm(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Fold a norm into the kernel of the convolution before it.

    Args:
        weight: `(channels out, channels in / groups, height, width)` of a convolution without bias.
        norm: The norm that follows it, as in evaluation, with statistics, weight and bias.

    Returns:
        Kernel, of the same shape, and bias `(channels out,)` of the equivalent convolution.
    """
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return weight * scale.view(-1, 1, 1, 1), torch.addcmul(norm.bias, mean, scale, value=-1)


class ConvNormAct(nn.Sequential):
    """A convolution without bias, a norm and an activation.

    The convolution is padded by half its kernel, so only its stride changes the size.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; equal to `in_channels` where `depthwise`.
        kernel_size: Side of the kernel.
        stride: Stride of the convolution.
        depthwise: Whether the convolution is depthwise.
        norm_layer: Called with the number of channels.
        act_layer: Called without arguments; None leaves out the activation.
        conv_layer: The convolution's class.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        depthwise: bool = False,
        norm_layer: NormLayer = BatchNorm2d,
        act_layer: Callable[[], nn.Module] | None = RELU6,
        conv_layer: type[nn.Conv2d] = nn.Conv2d,
    ) -> None:
        super().__init__()
        self.conv = conv_layer(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=in_channels if depthwise else 1,
            bias=False,
        )
        self.norm = norm_layer(out_channels)
        if act_layer is not None:
            self.act = act_layer()

    def forward(self, input: Tensor) -> Tensor:
        if not self._can_fold(input):
            return super().forward(input)
        output = self.conv._conv_forward(input, *fold_norm(self.conv.weight, cast(nn.BatchNorm2d, self.norm)))
        return self.act(output) if hasattr(self, "act") else output

    def _can_fold(self, input: Tensor) -> bool:
        """Return whether this call may fold the norm into the kernel.

        On a CPU in inference, folding costs less than the pass over the output that it saves. The folded kernel is not
        cached, because nothing signals a change of the weights. Compilers fold better by themselves. Folding bypasses
        the calls of convolution and norm, so neither may have hooks or the like; see `AsMade`.
        """
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling() or input.device.type != "cpu":
            return False
        if tuple(self._modules) not in (("conv", "norm"), ("conv", "norm", "act")):
            return False
        conv, norm = self.conv, self.norm
        if not (_is_as_made(conv) and _is_as_made(norm)) or norm.training or conv.bias is not None:
            return False
        tensors = conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var
        return (
            all(tensor is not None and tensor.dtype == input.dtype for tensor in tensors)
            and is_plain(input)
            and not (is_watched() or has_global_hooks() or torch.is_autocast_enabled("cpu"))
        )


class Conv2dSame(nn.Conv2d):
    """Convolution with TensorFlow's "SAME" padding; see `pad_same`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padded, padding = pad_same(input, self.kernel_size, self.stride)
        return F.conv2d(padded, weight, bias, self.stride, padding, self.dilation, self.groups)


# On the meta device, new modules draw no random numbers.
_is_as_made = AsMade(
    nn.Conv2d(1, 1, 1, device="meta"), Conv2dSame(1, 1, 1, device="meta"), BatchNorm2d(1, device="meta")
)


class MaxPool2dSame(nn.Module):
    """Max pooling with TensorFlow's "SAME" padding; see `pad_same`.

    Args:
        kernel_size: Side of the windows.
        stride: Distance between neighbouring windows.
    """

    def __init__(self, kernel_size: int, *, stride: int) -> None:
        super().__init__()
        self.kernel_size, self.stride = (kernel_size, kernel_size), (stride, stride)

    def forward(self, input: Tensor) -> Tensor:
        padded, padding = pad_same(input, self.kernel_size, self.stride, value=-math.inf)
        return F.max_pool2d(padded, self.kernel_size, self.stride, padding)


def pad_same(
    input: Tensor, kernel_size: Sequence[int], stride: Sequence[int], *, value: float = 0.0
) -> tuple[Tensor, tuple[int, int]]:
    """Pad an input as TensorFlow's "SAME" mode does.

    The output then has the input's size over the stride, rounded up. If the padding is odd, the extra row or column is
    at the bottom or right. For example, a 3 × 3 kernel of stride 2 pads even sizes by 0 before and 1 after.

    Args:
        input: `(N, channels, H, W)`.
        kernel_size: (height, width) of the kernel.
        stride: (down, across).
        value: Value of the padding that is made here.

    Returns:
        The input and the padding (down, across) left to the convolution. If a padding is odd, the input is padded and
        (0, 0) is left.
    """
    totals = [
        max((-(-size // step) - 1) * step + kernel - size, 0)
        for size, kernel, step in zip(input.shape[2:], kernel_size, stride, strict=True)
    ]
    down, across = totals
    if down % 2 == across % 2 == 0:
        return input, (down // 2, across // 2)
    return F.pad(input, (across // 2, across - across // 2, down // 2, down - down // 2), value=value), (0, 0)


class L2Norm(nn.Module):
    """The L2 norm over channels, with a learned factor for each.

    Liu et al., "ParseNet: Looking Wider to See Better", section 3.3. https://arxiv.org/abs/1506.04579

    Args:
        channels: Channels of the feature map.
        scale: Initial value of the factors.
    """

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), float(scale)))

    def forward(self, features: Tensor) -> Tensor:
        # In float16 sums of squares overflow, and the least divisor of F.normalize, 1e-12, is zero.
        precise = features.to(torch.promote_types(features.dtype, torch.float32))
        # As F.normalize, whose expanded divisor LiteRT's converter does not take.
        norm = torch.linalg.vector_norm(precise, dim=1, keepdim=True).clamp_min(1e-12)
        return self.weight.view(1, -1, 1, 1) * (precise / norm).to(features.dtype)
