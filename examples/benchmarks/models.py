"""Build models with equal random weights, images and targets for benchmarks."""

import torch
from torch import Tensor, nn
from torchvision.models import detection

import ssd_zoo
from ssd_zoo.weights.converters import torchvision as from_torchvision

# Our model's name, torchvision's builder, and the arguments that give ours the same network.
PAIRS = {
    "ssdlite320_mobilenet_v3_large": (detection.ssdlite320_mobilenet_v3_large, {"reduced_tail": True}),
    "ssd300_vgg16d": (detection.ssd300_vgg16, {}),
}
HEIGHT, WIDTH = 480, 640


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def batches() -> list[int]:
    return [1, 8, 32, 128] if torch.cuda.is_available() else [1, 8]


def build(name: str) -> tuple[ssd_zoo.SSD, nn.Module]:
    torch.manual_seed(0)
    torchvision_builder, kwargs = PAIRS[name]
    theirs = torchvision_builder(weights=None, weights_backbone=None)
    _tell_boxes_apart(theirs)
    ours = ssd_zoo.get_model(name, weights=None, weights_backbone=None, **kwargs)
    ours.load_state_dict(from_torchvision.ORIGIN.convert(theirs.state_dict()))
    return ours.to(device()), theirs.to(device())


@torch.no_grad()
def _tell_boxes_apart(model: nn.Module) -> None:
    """Scale kernels so that outputs are of order one.

    With the default initialisation all boxes have nearly the same score.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    images, _ = model.eval().transform(make_images(1, torch.device("cpu")))
    raw = model.head(list(model.backbone(images.tensors).values()))
    for head, key in ((model.head.classification_head, "cls_logits"), (model.head.regression_head, "bbox_regression")):
        for predictor in head.module_list:
            *_, last = (module for module in predictor.modules() if isinstance(module, nn.Conv2d))
            last.weight /= 2 * raw[key].std()


def make_images(count: int, where: torch.device | None = None) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, HEIGHT, WIDTH, generator=generator).to(where or device()) for _ in range(count)]


def make_targets(count: int, objects: int = 8) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    targets = []
    for _ in range(count):
        corners = torch.rand(objects, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT]) * 0.7
        sides = 20 + torch.rand(objects, 2, generator=generator) * 120
        labels = torch.randint(1, 91, (objects,), generator=generator)
        targets.append(
            {"boxes": torch.cat([corners, corners + sides], dim=1).to(device()), "labels": labels.to(device())}
        )
    return targets
