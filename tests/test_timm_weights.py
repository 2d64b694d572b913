"""Weights of timm's classifiers in our backbones: the same feature maps."""

from functools import partial

import pytest
import timm
import torch
from oracles import fill
from torch import nn

import ssd_zoo
from ssd_zoo.layers.basic import BatchNorm2d
from ssd_zoo.weights.converters.timm import ORIGIN

BUILDERS = {
    "vgg16": ssd_zoo.ssd300_vgg16d,
    "resnet18": ssd_zoo.ssd300_resnet18,
    "resnet34": ssd_zoo.ssd300_resnet34,
    "resnet50": ssd_zoo.ssd300_resnet50,
    "resnet101": ssd_zoo.ssd300_resnet101,
    "mobilenetv2_100": ssd_zoo.ssdlite320_mobilenet_v2_lufficc,
    # timm's eps is torch's own, torchvision's is not.
    "mobilenetv3_large_100": partial(
        ssd_zoo.ssdlite320_mobilenet_v3_large,
        reduced_tail=False,
        norm_layer=partial(BatchNorm2d, eps=1e-5),
        weights_backbone=None,
    ),
}
# What a backbone has and a classifier does not know of.
NEW = ("extras", "conv4_3_norm", "features.31", "features.33", "layer4")


@pytest.fixture(scope="module", params=BUILDERS)
def pair(request):
    """Our backbone and timm's classifier, of the same tensors."""
    theirs = timm.create_model(request.param, pretrained=False)
    before = theirs.state_dict()
    kinds = {name: (list(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in before.items()}
    # The classifier's layers are large and of no use.
    unused = ("pre_logits", "head", "fc", "classifier")
    theirs.load_state_dict(
        {
            name: before[name] if name.startswith(unused) else torch.from_numpy(fill(name, *kind))
            for name, kind in kinds.items()
        }
    )
    build = BUILDERS[request.param]
    ours = build(num_classes=2, **({} if "v3" in request.param else {"weights_backbone": None})).backbone
    missing, unexpected = ours.load_state_dict(ORIGIN.convert(theirs.state_dict()), strict=False)
    assert all(name.startswith(NEW) for name in [*missing, *unexpected])
    return request.param, ours.eval(), theirs.eval()


@torch.inference_mode()
def test_feature_maps(pair):
    name, ours, theirs = pair
    batch = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    if name == "vgg16":
        # Up to conv4_3, and from there to conv5_3; behind it SSD pools otherwise.
        found = [nn.Sequential(*ours.features[:end])(batch) for end in (23, 30)]
        expected = [theirs.features[:23](batch), theirs.features[:30](batch)]
    elif name.startswith("resnet"):
        # SSD takes the stride of conv4 away.
        for conv in (theirs.layer3[0].conv1, theirs.layer3[0].conv2):
            conv.stride = (1, 1)
        theirs.layer3[0].downsample[0].stride = (1, 1)
        found = [torch.nn.Sequential(*list(ours.children())[:7])(batch)]
        expected = [torch.nn.Sequential(*list(theirs.children())[:7])(batch)]
        assert found[0].shape[2:] == (12, 16)
    else:
        found = ours(batch)[:2]
        expected = [theirs.forward_intermediates(batch, indices=[3], intermediates_only=True)[0]]
        if "v3" in name:
            # The map at stride 16 is the next block's expansion.
            expected[0] = theirs.blocks[5][0].bn1(theirs.blocks[5][0].conv_pw(expected[0]))
        expected.append(theirs.forward_features(batch))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert b.std() > 0
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * b.std().item())


def test_foreign_tensors_are_refused():
    with pytest.raises(ValueError, match=r"Unexpected tensor 'blocks\.7\.0"):
        ORIGIN.convert({"blocks.7.0.conv_pw.weight": torch.zeros(1)})
