"""Winograd's algorithm gives what the plain convolution gives."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssd_zoo.detector.winograd import WinogradConv2d, transform_kernel, winograd_conv2d, winograd_pays


def case(n, channels, out, height, width):
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(n, channels, height, width, generator=generator)
    weight = torch.randn(out, channels, 3, 3, generator=generator) / (9 * channels) ** 0.5
    return batch, weight, torch.randn(out, generator=generator)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize(
    "shape",
    [(1, 3, 5, 8, 8), (2, 3, 70, 9, 6), (3, 128, 256, 19, 19), (1, 8, 4, 75, 70), (70, 4, 4, 7, 5), (1, 4, 4, 3, 3)],
)
@pytest.mark.parametrize("kept", [False, True])
@torch.no_grad()
def test_equals_the_exact_convolution(shape, padding, kept):
    batch, weight, bias = case(*shape)
    transformed = transform_kernel(weight) if kept else None
    exact = F.conv2d(batch.double(), weight.double(), bias.double(), padding=padding)
    for given, bias_, expected in ((batch, bias, exact), (batch, None, exact - bias.double().view(-1, 1, 1))):
        for layout in (torch.contiguous_format, torch.channels_last):
            found = winograd_conv2d(given.contiguous(memory_format=layout), weight, bias_, padding, transformed)
            assert found.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)


@torch.no_grad()
def test_rounds_hardly_more_than_the_plain_convolution():
    batch, weight, bias = case(1, 256, 256, 38, 38)
    exact = F.conv2d(batch.double(), weight.double(), bias.double(), padding=1)

    def error(found):
        return (found - exact).square().mean().sqrt()

    assert error(winograd_conv2d(batch, weight, bias, 1)) < 5 * error(F.conv2d(batch, weight, bias, padding=1))


def layer(**kwargs):
    return WinogradConv2d(**{"in_channels": 128, "out_channels": 256, "kernel_size": 3, "padding": 1, **kwargs})


def pays(conv, batch):
    return winograd_pays(conv, batch, conv.weight)


BATCH = torch.rand(1, 128, 32, 32)


@torch.no_grad()
def test_pays_for_many_channels_and_tiles_on_a_cpu():
    assert pays(layer(), BATCH)
    assert not pays(layer(), BATCH[..., :31])
    assert not pays(layer(in_channels=127), BATCH[:, :127])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not pays(layer(), BATCH)
    with torch.enable_grad():
        assert not pays(layer(), BATCH)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"stride": 2},
        {"dilation": 2},
        {"groups": 2},
        {"padding": 2},
        {"padding": (0, 1)},
        {"padding_mode": "reflect"},
        {"kernel_size": 5},
        {"dtype": torch.float64},
    ],
)
@torch.no_grad()
def test_leaves_other_convolutions_alone(kwargs):
    conv = layer(**kwargs)
    batch = BATCH.to(conv.weight.dtype)
    assert not pays(conv, batch)
    assert torch.equal(conv(batch), nn.Conv2d.forward(conv, batch))


def test_follows_its_weights():
    conv = layer()
    with torch.no_grad():
        first = conv(BATCH)
        conv.weight.data.mul_(2)
        conv.bias.data.mul_(2)
        torch.testing.assert_close(conv(BATCH), 2 * first)


@pytest.mark.parametrize("shape", [(2, 128, 256, 32, 33), (3, 5, 7, 9, 8)])
@pytest.mark.parametrize("frozen", [(), ("batch",), ("weight",), ("weight", "bias"), ("bias",)])
def test_gradients_are_those_of_the_plain_convolution(shape, frozen):
    given = dict(zip(("batch", "weight", "bias"), case(*shape), strict=True))
    given["batch"] = given["batch"].contiguous(memory_format=torch.channels_last)
    conv = layer(in_channels=shape[1], out_channels=shape[2])
    conv.weight.data, conv.bias.data = given["weight"], given["bias"]
    batch = given["batch"].requires_grad_("batch" not in frozen)
    conv.weight.requires_grad_("weight" not in frozen)
    conv.bias.requires_grad_("bias" not in frozen)
    leaves = [tensor for tensor in (batch, conv.weight, conv.bias) if tensor.requires_grad]
    weights = torch.randn(shape[0], shape[2], *shape[3:], generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((conv(batch) * weights).sum(), leaves)
    exact = F.conv2d(batch.double(), conv.weight.double(), conv.bias.double(), padding=1)
    expected = torch.autograd.grad((exact * weights).sum(), leaves)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5 * b.std().item())


def test_compiles_as_a_plain_convolution():
    conv = layer()
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            graph = torch.export.export(conv, (BATCH,)).graph
        [target] = [str(node.target) for node in graph.nodes if node.op == "call_function"]
        assert "conv2d" in target
