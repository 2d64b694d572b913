"""Winograd's algorithm gives what the plain convolution gives."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssd_zoo.layers.convolution import FastConv2d, conv2d, winograd_pays
from ssd_zoo.layers.winograd import transform_kernel, winograd_conv2d, winograd_kernel_gradient


def case(n, channels, out, height, width):
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(n, channels, height, width, generator=generator)
    weight = torch.randn(out, channels, 3, 3, generator=generator) / (9 * channels) ** 0.5
    return batch, weight, torch.randn(out, generator=generator)


@pytest.mark.parametrize("padding", [0, 1, 2])
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
def test_images_of_a_batch_do_not_touch():
    batch, weight, bias = case(3, 70, 80, 12, 12)
    alone = winograd_conv2d(batch[[0]], weight, bias, 1), winograd_conv2d(batch[[2]], weight, bias, 1)
    batch[1] = torch.nan
    together = winograd_conv2d(batch, weight, bias, 1)
    torch.testing.assert_close(together[[0, 2]], torch.cat(alone), rtol=0, atol=2e-5)
    assert together[1].isnan().all()


@torch.no_grad()
def test_rounds_little_more_than_the_plain_convolution():
    batch, weight, bias = case(1, 256, 256, 38, 38)
    exact = F.conv2d(batch.double(), weight.double(), bias.double(), padding=1)

    def error(found):
        return (found - exact).square().mean().sqrt()

    # CPUs add the 2304 products in different orders; one after the other they are added here.
    columns, kernels = F.unfold(batch, 3, padding=1)[0], weight.flatten(1)
    plain = bias.unsqueeze(1).expand(-1, columns.shape[1])
    for k, column in enumerate(columns):
        plain = plain + kernels[:, k : k + 1] * column
    # Here it is 0.9 times as much; at the paper's points twice that.
    assert error(winograd_conv2d(batch, weight, bias, 1)) < 1.2 * error(plain.reshape(exact.shape))


def layer(**kwargs):
    return FastConv2d(**{"in_channels": 128, "out_channels": 256, "kernel_size": 3, "padding": 1, **kwargs})


def pays(conv, batch):
    return winograd_pays(conv, batch, conv.weight)


BATCH = torch.rand(1, 128, 32, 32)


@torch.no_grad()
def test_pays_for_many_channels_and_tiles_on_a_cpu():
    assert pays(layer(), BATCH[..., :28, :28])
    assert not pays(layer(), BATCH[..., :28, :27])
    assert winograd_pays(layer(), BATCH[..., :28, :27], layer().weight, kept=True)
    assert not winograd_pays(layer(), BATCH[..., :19, :19], layer().weight, kept=True)
    assert not pays(layer(in_channels=63), BATCH[:, :63])
    assert not pays(layer(in_channels=64, out_channels=100), torch.rand(1, 64, 300, 300))
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


def test_memory_is_shared_by_calls_not_by_threads():
    batch, weight, bias = case(4, 64, 64, 30, 30)
    with torch.no_grad():
        expected = [winograd_conv2d(image, weight, bias, 1) for image in batch.split(1)]

    def convolve(image):
        with torch.inference_mode():
            first = winograd_conv2d(image, weight, bias, 1)
        with torch.no_grad():
            return first, winograd_conv2d(image, weight, bias, 1)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            found = pool.map(convolve, batch.split(1))
            assert all(
                torch.equal(result, value) for results, value in zip(found, expected, strict=True) for result in results
            )


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("shape", [(1, 3, 5, 8, 8), (2, 3, 70, 9, 6), (3, 64, 65, 38, 37), (70, 4, 4, 7, 5)])
def test_gradient_of_a_kernel_is_the_exact_one(shape, padding):
    batch, weight, _ = case(*shape)
    result = F.conv2d(batch.double(), weight.double().requires_grad_(), padding=padding)
    gradient = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    exact = torch.nn.grad.conv2d_weight(batch.double(), weight.shape, gradient.double(), padding=padding)
    for layout in (torch.contiguous_format, torch.channels_last):
        given = (tensor.contiguous(memory_format=layout) for tensor in (batch, gradient))
        found = winograd_kernel_gradient(*given, padding)
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-5 * exact.std().item())


# The algorithm back and forth; in gradients of kernels alone; nowhere.
@pytest.mark.parametrize("shape", [(2, 128, 256, 32, 33), (2, 64, 64, 33, 32), (3, 64, 70, 5, 6), (2, 5, 7, 32, 32)])
@pytest.mark.parametrize("frozen", [(), ("batch",), ("weight",), ("weight", "bias"), ("bias",)])
@pytest.mark.parametrize("dilation", [1, 3])
def test_gradients_are_those_of_the_plain_convolution(shape, frozen, dilation):
    given = dict(zip(("batch", "weight", "bias"), case(*shape), strict=True))
    conv = layer(in_channels=shape[1], out_channels=shape[2], padding=dilation, dilation=dilation)
    conv.weight.data, conv.bias.data = given["weight"], given["bias"]
    batch = given["batch"].contiguous(memory_format=torch.channels_last).requires_grad_("batch" not in frozen)
    conv.weight.requires_grad_("weight" not in frozen)
    conv.bias.requires_grad_("bias" not in frozen)
    leaves = [tensor for tensor in (batch, conv.weight, conv.bias) if tensor.requires_grad]
    weights = torch.randn(shape[0], shape[2], *shape[3:], generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((conv(batch) * weights).sum(), leaves)
    exact = F.conv2d(batch.double(), conv.weight.double(), conv.bias.double(), padding=dilation, dilation=dilation)
    expected = torch.autograd.grad((exact * weights).sum(), leaves)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5 * b.std().item())


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("size", [3, 9, 33])
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck's own
def test_is_one_step_for_compilers(padding, kept, size):
    batch, weight, bias = case(2, 64, 66, size, size)
    leaves = [tensor.requires_grad_(not kept) for tensor in (batch, weight, bias)]
    transformed = transform_kernel(weight) if kept else None
    torch.library.opcheck(conv2d, (*leaves, padding, 1, transformed))


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("size", [5, 9])
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck's own
def test_is_one_step_for_compilers_with_dilation(padding, size):
    leaves = [tensor.requires_grad_() for tensor in case(2, 64, 66, size, size)]
    torch.library.opcheck(conv2d, (*leaves, padding, 2))


def test_exports_as_a_plain_convolution():
    conv = layer()
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            graph = torch.export.export(conv, (BATCH,)).graph
        [target] = [str(node.target) for node in graph.nodes if node.op == "call_function"]
        assert "aten.conv" in target


def test_other_tensors_than_torchs_own_see_a_plain_convolution():
    conv = layer()

    seen = []

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            seen.append(func)
            return super().__torch_function__(func, types, args, kwargs)

    conv(BATCH.as_subclass(Watched))
    assert torch.conv2d in seen


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_does_not_matter(dtype):
    """In a thread of its own, whose buffers are made under that default."""
    batch, conv = torch.randn(2, 128, 32, 32), layer()
    expected = [conv(batch), *gradients(conv, batch)]

    def compute():
        torch.set_default_dtype(dtype)
        try:
            under = [conv(batch), *gradients(conv, batch)]
        finally:
            torch.set_default_dtype(torch.float32)
        return under, [conv(batch), *gradients(conv, batch)]

    with ThreadPoolExecutor(1) as pool:
        for found in pool.submit(compute).result():
            for one, other in zip(found, expected, strict=True):
                assert one.dtype == torch.float32
                torch.testing.assert_close(one, other, rtol=0, atol=1e-6 * other.abs().max().item())


def gradients(conv, batch):
    batch = batch.clone().requires_grad_()
    return torch.autograd.grad(conv(batch).square().sum(), [batch, conv.weight])
