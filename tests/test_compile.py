"""What compilers and exporters take, and what waits for no device."""

import pytest
import torch
from quick import quick
from torch import nn
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode

import ssd_zoo
from ssd_zoo import SSD, DefaultBoxGenerator
from ssd_zoo.layers.basic import ConvNormAct


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = ConvNormAct(3, 8, 3, stride=2)
        self.second = ConvNormAct(8, 8, 3, stride=2)

    def forward(self, batch):
        first = self.first(batch[..., ::4, ::4])
        return [first, self.second(first)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    default_boxes = DefaultBoxGenerator([[2], [2]], [0.2, 0.5, 0.9])
    categories = ["background", "cat", "dog"]
    return SSD(Backbone(), default_boxes, (64, 64), categories, detections_per_img=20, topk_candidates=50).eval()


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    counters.clear()


def images_of(*sizes):
    return [torch.rand(3, *size, generator=torch.Generator().manual_seed(i)) for i, size in enumerate(sizes)]


def targets_of(*counts):
    corners = torch.rand(sum(counts), 2, generator=torch.Generator().manual_seed(0)) * 15
    boxes = torch.cat([corners, corners + 15], dim=1)
    labels = torch.arange(sum(counts)) % 2 + 1
    return [
        {"boxes": b, "labels": k} for b, k in zip(boxes.split(list(counts)), labels.split(list(counts)), strict=True)
    ]


@pytest.mark.parametrize("name", ["forward_raw", "forward_fixed"])
@torch.no_grad()
def test_whole_graphs(model, name):
    function = getattr(model, name)
    batch = model.prepare(images_of((40, 60), (50, 50), (30, 30)))
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")(batch)
    for key, value in function(batch).items():
        torch.testing.assert_close(compiled[key], value)


@pytest.mark.parametrize(
    ("loss", "box_loss"),
    quick(("cross_entropy", "giou"), of=[("cross_entropy", "smooth_l1"), ("cross_entropy", "giou"), ("focal", "ciou")]),
)
@pytest.mark.parametrize("score_function", ["softmax", "sigmoid"])
def test_losses_are_a_whole_graph(model, loss, score_function, box_loss):
    model.classification_loss, model.score_function, model.box_loss = loss, score_function, box_loss
    batch = model.prepare(images_of((40, 60), (50, 50)))
    objects = model.prepare_targets(targets_of(3, 1), [(40, 60), (50, 50)])
    results = []
    for function in (model.forward_losses, torch.compile(model.forward_losses, fullgraph=True, backend="aot_eager")):
        losses = function(batch, *objects)
        model.zero_grad()
        sum(losses.values()).backward()
        results.append({**losses, **{name: parameter.grad for name, parameter in model.named_parameters()}})
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("name", ["forward_raw", "forward_fixed"])
def test_exports_with_any_batch(model, name):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, batch):
            return getattr(self.model, name)(batch)

    batch = model.prepare(images_of((40, 60), (50, 50), (30, 30)))
    with torch.no_grad():
        program = torch.export.export(
            Wrapped(), (batch[:2],), dynamic_shapes={"batch": {0: torch.export.Dim("batch", min=1, max=64)}}
        )
        for images in (1, 3):
            exported = program.module()(batch[:images])
            for key, value in getattr(model, name)(batch[:images]).items():
                torch.testing.assert_close(exported[key], value)


def test_sizes_of_images_compile_nothing_anew(model):
    compiled = torch.compile(model, backend="aot_eager")
    sizes = [(40, 60), (33, 44), (70, 51), (64, 64), (20, 90), (55, 35), (41, 61), (90, 20)]
    graphs = []
    with torch.no_grad():
        for count in (2, 3, 4, 5):
            for start in range(3):
                images = images_of(*sizes[start : start + count])
                found = compiled(images)
                for ours, expected in zip(found, model(images), strict=True):
                    torch.testing.assert_close(ours, expected)
                graphs.append(counters["stats"]["unique_graphs"])
    # One of the first batch's size, one of any.
    assert graphs == [1] * 3 + [2] * 9
    assert not counters["graph_break"]


@pytest.mark.slow
def test_training_compiles(model):
    model.train()
    compiled = torch.compile(model, backend="aot_eager")
    graphs = []
    for sizes, counts in (((40, 60), (33, 44)), (2, 3)), (((41, 30), (34, 45)), (5, 0)), (((34, 35), (70, 39)), (1, 4)):
        losses = compiled(images_of(*sizes), targets_of(*counts))
        sum(losses.values()).backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
        graphs.append(counters["stats"]["unique_graphs"])
    # One of the first number of objects, one of any.
    assert graphs == [1, 2, 2]


@pytest.mark.parametrize("box_loss", ["smooth_l1", "giou", "ciou"])
def test_nothing_waits_for_a_device(model, box_loss):
    model.box_loss = box_loss
    # Fake tensors have no values: whatever asks for one, as a device would have to be waited for, is an error.
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        targets = [{key: mode.from_tensor(value) for key, value in target.items()} for target in targets_of(3, 0)]
        batch = mode.from_tensor(torch.rand(2, 3, 64, 64))
        postponed = []
        model._checks.add = lambda values, check: postponed.append(values)
        assert model.prepare(list(batch)).shape == (2, 3, 64, 64)
        objects = model.prepare_targets(targets, [(64, 64), (64, 64)])
        losses = model.forward_losses(batch, *objects)
        sum(losses.values()).backward()
        assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())
        assert [values.shape for values in postponed] == [(2, 2), (2, 2, 3), (2,)]


@pytest.mark.skipif(
    torch.__version__ < "2.7", reason="NO GPU, and torch 2.6 needs one for `contiguous` of fake tensors"
)
@pytest.mark.parametrize(
    "name",
    quick(
        "ssd300_resnet18",
        of=[
            "ssd300_vgg16d",
            "ssdlite320_mobilenet_v3_large",
            "ssdlite300_mobilenet_v2",
            "ssd300_resnet18",
            "ssdlite320_mobilenet_v2_fpn",
        ],
    ),
)
def test_nothing_is_left_behind_on_the_cpu(name):
    # Fake tensors know of their device, even where there is none, and refuse to be mixed.
    model = ssd_zoo.get_model(name, weights=None, weights_backbone=None, num_classes=5).train()
    with FakeTensorMode():
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                for key, value in tensors.items():
                    tensors[key] = (
                        value if value is None else torch.empty(value.shape, dtype=value.dtype, device="cuda")
                    )
        model._checks.add = model._checks.run = lambda *_args, **_kwargs: None
        images = [torch.rand(3, 240, 320, device="cuda"), torch.rand(3, 100, 120, device="cuda")]
        labels = torch.ones(3, dtype=torch.int64, device="cuda")
        losses = model(images, [{"boxes": torch.rand(3, 4, device="cuda"), "labels": labels}] * 2)
        with torch.no_grad():
            detections = model.eval().forward_fixed(model.prepare(images))
        assert {value.device.type for value in (*losses.values(), *detections.values())} == {"cuda"}
