"""Fast layers do what torch's layers do, whatever users add to them."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import func, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.flop_counter import FlopCounterMode

import ssd_zoo
from ssd_zoo.backbones.temporal import Past, temporal_layer
from ssd_zoo.detector.shared_head import SeparableConv2d
from ssd_zoo.layers.basic import BatchNorm2d, Conv2dSame, ConvNormAct
from ssd_zoo.layers.convolution import FastConv2d

# So many channels and tiles that Winograd's algorithm pays.
CHANNELS = 80
BATCH = torch.randn(2, CHANNELS, 32, 32, generator=torch.Generator().manual_seed(0))


def conv_norm_act(**kwargs):
    layer = ConvNormAct(CHANNELS, CHANNELS, **kwargs)
    with torch.no_grad():
        for tensor in (layer.norm.weight, layer.norm.running_var):
            tensor.uniform_(0.5, 2)
        for tensor in (layer.norm.bias, layer.norm.running_mean):
            tensor.normal_()
    return layer.eval()


class Called(nn.Module):
    """A temporal layer on one clip, as a layer of one argument."""

    def __init__(self, temporal):
        super().__init__()
        self.conv = temporal_layer(FastConv2d(CHANNELS, CHANNELS, 3, padding=1), temporal, "average")

    def forward(self, batch):
        return self.conv(batch, Past([len(batch)], batch.device))


LAYERS = {
    "conv_norm_act": conv_norm_act,
    "depthwise": partial(conv_norm_act, kernel_size=3, depthwise=True),
    "same": partial(conv_norm_act, kernel_size=3, conv_layer=Conv2dSame, stride=2, depthwise=True),
    "fast": lambda: nn.Sequential(FastConv2d(CHANNELS, CHANNELS, 3, padding=1)),
    "dilated": lambda: nn.Sequential(FastConv2d(CHANNELS, CHANNELS, 3, padding=2, dilation=2)),
    "separable": lambda: SeparableConv2d(CHANNELS, CHANNELS, 3, padding=1),
    "3d": lambda: Called("3d"),
    "2plus1d": lambda: Called("2plus1d"),
    "shift": lambda: Called("shift"),
}


def convs(layer):
    return [module for module in layer.modules() if hasattr(module, "stride") and hasattr(module, "weight")]


def leaves(layer):
    """The convolutions, of several parts too, and all modules without parts."""
    return [module for module in layer.modules() if module in convs(layer) or not any(module.children())]


def as_torch_computes(layer, batch):
    """Return the output without shortcuts: none is taken in float64 while gradients are recorded."""
    with torch.enable_grad():
        return layer.double()(batch.double()).detach()


# What users do to the modules of a layer: each changes what the layer returns, or must be seen to happen.
def prune_it(layer):
    for conv in convs(layer):
        prune.random_unstructured(conv, "weight", amount=0.5)
    with torch.no_grad():
        for conv in convs(layer):
            conv.weight_orig.mul_(2)  # as loading a state does: the pruned weight is computed at the next call


def weight_norm(layer):
    for conv in convs(layer):
        parametrizations.weight_norm(conv)
        conv.parametrizations.weight.original0.data.mul_(2)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
def old_weight_norm(layer):
    for conv in convs(layer):
        torch.nn.utils.weight_norm(conv)
        conv.weight_g.data.mul_(2)


def spectral_norm(layer):
    for conv in convs(layer):
        parametrizations.spectral_norm(conv).eval()


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def parametrize_it(layer):
    for conv in convs(layer):
        parametrize.register_parametrization(conv, "weight", Doubled())


def hook_before(layer):
    for module in leaves(layer):
        module.register_forward_pre_hook(lambda _, args: (args[0] + 1, *args[1:]))


def hook_after(layer):
    for module in leaves(layer):
        module.register_forward_hook(lambda _module, _args, output: output + 1)


def hook_with_kwargs(layer):
    for module in leaves(layer):
        module.register_forward_hook(lambda _module, _args, _kwargs, output: output * 2, with_kwargs=True)


def replace_forward(layer):
    for module in leaves(layer):
        module.forward = lambda *args, before=module.forward: before(*args) + 1


def replace_norm(layer):
    layer.norm = nn.GroupNorm(8, CHANNELS)


def norm_without_affine(layer):
    layer.norm = BatchNorm2d(CHANNELS, affine=False).eval()


def norm_without_statistics(layer):
    layer.norm = BatchNorm2d(CHANNELS, track_running_stats=False).eval()


def norm_that_trains(layer):
    layer.norm.train()


def norm_of_ones_own(layer):
    class Shifted(BatchNorm2d):
        def forward(self, input):
            return super().forward(input) + 1

    layer.norm.__class__ = Shifted


def parametrize_norm(layer):
    parametrize.register_parametrization(layer.norm, "weight", Doubled())


def conv_with_bias(layer):
    layer.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)


class Adapted(nn.Module):
    """A layer with a low-rank addition, as LoRA's."""

    def __init__(self, base):
        super().__init__()
        self.base, self.down, self.up = base, nn.Conv2d(CHANNELS, 2, 1), nn.Conv2d(2, CHANNELS, 1)

    def forward(self, batch, *past):
        result = self.base(batch, *past)
        return result + F.interpolate(self.up(self.down(batch)), result.shape[2:])


def adapt(layer):
    known = convs(layer)
    for parent in list(layer.modules()):
        for name, child in parent.named_children():
            if child in known:
                setattr(parent, name, Adapted(child))


def add_a_layer(layer):
    layer.append(nn.Tanh())


def scale_in_place(layer):
    for parameter in layer.parameters():
        parameter.data.mul_(1.5)


class Scaled(torch.Tensor):
    """A weight that counts twice as often as it says."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.conv2d:
            args = (args[0], 2 * args[1].as_subclass(torch.Tensor), *args[2:])
        return super().__torch_function__(func, types, args, kwargs)


def weight_of_another_class(layer):
    for conv in convs(layer):
        kernel = conv.weight.detach()
        del conv.weight
        conv.register_buffer("weight", (torch.rand_like(kernel) / 10).as_subclass(Scaled))


DONE = [
    *(prune_it, weight_norm, old_weight_norm, spectral_norm, parametrize_it, hook_before, hook_after, hook_with_kwargs),
    *(replace_forward, adapt, scale_in_place, weight_of_another_class),
]
DONE_WITH_NORMS = [
    *(replace_norm, norm_without_affine, norm_without_statistics, norm_that_trains, norm_of_ones_own),
    *(parametrize_norm, conv_with_bias),
]
WITH_NORMS = ["conv_norm_act", "depthwise", "same"]
CASES = [*((kind, change) for kind in LAYERS for change in DONE)]
CASES += [(kind, change) for kind in WITH_NORMS for change in DONE_WITH_NORMS]
CASES += [(kind, add_a_layer) for kind in (*WITH_NORMS, "fast", "dilated")]


def made(kind, change=None):
    torch.manual_seed(0)
    layer = LAYERS[kind]()
    with torch.no_grad():
        layer(BATCH)
    if change is not None:
        change(layer)
    return layer


@pytest.mark.parametrize(("kind", "change"), CASES, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
def test_what_users_add_takes_part(kind, change):
    layer, other = made(kind, change), made(kind, change)
    expected = as_torch_computes(other, BATCH)
    with torch.no_grad():
        torch.testing.assert_close(layer(BATCH).double(), expected, rtol=1e-4, atol=1e-4)
    unchanged = as_torch_computes(made(kind), BATCH)
    same = expected.shape == unchanged.shape and torch.allclose(expected, unchanged, rtol=1e-2, atol=1e-2)
    assert not same, "nothing was changed"


@torch.no_grad()
def test_autocast_decides_the_precision():
    layer = conv_norm_act()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(BATCH), nn.Sequential(*layer)(BATCH))


@torch.no_grad()
def test_hooks_on_all_modules_see_each_module():
    layer, seen = conv_norm_act(), []
    handle = nn.modules.module.register_module_forward_pre_hook(lambda module, _: seen.append(module))
    try:
        layer(BATCH)
    finally:
        handle.remove()
    assert seen == [layer, *layer]


@torch.no_grad()
@pytest.mark.parametrize("name", ["__call__", "forward"])
def test_methods_replaced_on_the_class_are_called(monkeypatch, name):
    layer, seen = conv_norm_act(), []
    before = getattr(nn.Conv2d, name)
    monkeypatch.setattr(nn.Conv2d, name, lambda self, *args: seen.append(self) or before(self, *args))
    layer(BATCH)
    assert seen == [layer.conv]


@torch.no_grad()
def test_counters_of_operators_count_convolutions():
    counts = []
    for layer in (FastConv2d(CHANNELS, CHANNELS, 3, padding=1), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)):
        with FlopCounterMode(display=False) as counter:
            layer(BATCH)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@torch.no_grad()
@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_offloaded_layers_are_fetched(place, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    layer = nn.Sequential(conv_norm_act(), FastConv2d(CHANNELS, CHANNELS, 3, padding=1))
    expected = layer(BATCH)
    if place == "cpu":
        accelerate.cpu_offload(layer, execution_device="cpu")
    else:
        accelerate.disk_offload(layer, tmp_path, execution_device="cpu")
    torch.testing.assert_close(layer(BATCH), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_compiled_children_are_called():
    # torch 2.6 does not compile torch's own layers so.
    layer, seen = conv_norm_act(conv_layer=FastConv2d), []
    expected = layer(BATCH)
    layer.conv.compile(backend=lambda graph, _: seen.append(graph) or graph.forward)
    torch.testing.assert_close(layer(BATCH), expected, rtol=1e-4, atol=1e-4)
    assert len(seen) == 1


# What FastConv2d must do as nn.Conv2d does: each function takes the layer as a function of its tensors.
def loss_of(layer):
    where = "conv." if isinstance(layer, Called) else ""

    def loss(batch, weight, bias):
        return functional_call(layer, {f"{where}weight": weight, f"{where}bias": bias}, (batch,)).square().mean()

    return loss


def hessian_product(loss, *tensors):
    tensors = [tensor.detach().requires_grad_() for tensor in tensors]
    gradients = torch.autograd.grad(loss(*tensors), tensors, create_graph=True)
    return torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), tensors)


def forward_mode(loss, *tensors):
    with forward_ad.dual_level():
        dual = [forward_ad.make_dual(tensor, torch.ones_like(tensor)) for tensor in tensors]
        return [forward_ad.unpack_dual(loss(*dual)).tangent]


def many_gradients(loss, *tensors):
    tensors = [tensor.detach().requires_grad_() for tensor in tensors]
    factors = torch.arange(1.0, 4, dtype=tensors[0].dtype)
    return torch.autograd.grad(loss(*tensors), tensors, grad_outputs=factors, is_grads_batched=True)


DERIVATIVES = {
    "grad": lambda loss, *tensors: func.grad(loss, argnums=(0, 1, 2))(*tensors),
    "vmap": lambda loss, batch, *others: [func.vmap(loss, in_dims=(0, None, None))(batch.unsqueeze(1), *others)],
    "gradients of each image": lambda loss, batch, *others: func.vmap(
        func.grad(loss, argnums=(0, 1, 2)), in_dims=(0, None, None)
    )(batch.unsqueeze(1), *others),
    "jvp": lambda loss, *tensors: func.jvp(loss, tensors, tuple(map(torch.ones_like, tensors))),
    "vjp": lambda loss, *tensors: func.vjp(loss, *tensors)[1](torch.ones((), dtype=tensors[0].dtype)),
    "forward over reverse": lambda loss, *tensors: func.jvp(
        func.grad(loss, argnums=(0, 1, 2)), tensors, tuple(map(torch.ones_like, tensors))
    )[1],
    "functional_call": lambda loss, *tensors: [loss(*tensors)],
    "double backward": hessian_product,
    "forward mode": forward_mode,
    "many gradients": many_gradients,
}


@pytest.mark.parametrize("derive", DERIVATIVES)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated")
@pytest.mark.filterwarnings("ignore:There is a performance drop because we have not yet implemented the batching rule")
@pytest.mark.parametrize("kind", ["1", "2", "3d", "2plus1d", "depthwise", "shift"])
def test_derivatives_are_those_of_plain_calls(derive, kind):
    """Those of torch's convolution; of temporal layers those in float64, in which they take no shortcut."""
    torch.manual_seed(0)
    if kind in "12":
        layer = conv = FastConv2d(CHANNELS, CHANNELS, 3, padding=int(kind), dilation=int(kind))
        reference = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=int(kind), dilation=int(kind)).double()
    else:
        layer = Called(kind)
        conv, reference = layer.conv, copy.deepcopy(layer).double()
    given = BATCH, conv.weight.detach(), conv.bias.detach()
    found = DERIVATIVES[derive](loss_of(layer), *given)
    expected = DERIVATIVES[derive](loss_of(reference), *(tensor.double() for tensor in given))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-4 * b.abs().max().item())


def smooth(module):
    """Replaces what a rounding error can switch: ReLUs, and the maxima of pools."""
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU):
            setattr(module, name, nn.Softplus())
        elif isinstance(child, nn.MaxPool2d):
            setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode))
        else:
            smooth(child)


@pytest.mark.slow
@pytest.mark.parametrize(("change", "most"), [(lambda model: None, 0.02), (smooth, 1e-5)], ids=["VGG", "smooth"])
def test_gradients_to_the_image_are_as_far_from_exact_ones_as_the_page_says(change, most):
    torch.manual_seed(0)
    model = ssd_zoo.ssd300_vgg16d(weights=None, weights_backbone=None, num_classes=5).eval()
    change(model)
    gradients = []
    for one in (model, copy.deepcopy(model).double()):
        batch = torch.randn(1, 3, 300, 300, generator=torch.Generator().manual_seed(1)).to(next(one.parameters()).dtype)
        raw = one.forward_raw(batch.requires_grad_())
        sum(value.square().mean() for value in raw.values()).backward()
        gradients.append(batch.grad.double())
    assert (gradients[0] - gradients[1]).norm() < most * gradients[1].norm()
