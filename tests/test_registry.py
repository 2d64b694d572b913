"""Looking models and weights up."""

import pickle

import pytest
import torchvision

import ssd_zoo


def test_lists_by_pattern():
    assert "ssd300_vgg16d" in ssd_zoo.list_models()
    assert ssd_zoo.list_models() == sorted(ssd_zoo.list_models())
    assert ssd_zoo.list_models("ssd300_vgg*") == ["ssd300_vgg16d", "ssd300_vgg16d_3d"]
    assert not set(ssd_zoo.list_models(["ssd300*", "ssdlite*"], exclude="ssdlite*")) & set(
        ssd_zoo.list_models("ssdlite*")
    )
    assert ssd_zoo.list_models("nothing") == []


def test_builders_by_name_in_any_case():
    assert ssd_zoo.get_model_builder("SSD300_VGG16D") is ssd_zoo.ssd300_vgg16d


def test_unknown_names_propose():
    with pytest.raises(ValueError, match=r"Unknown model 'ssd300_vgg16'. Did you mean ssd300_vgg16d"):
        ssd_zoo.get_model("ssd300_vgg16")
    with pytest.raises(ValueError, match="Known are: .*ssd300_vgg16d"):
        ssd_zoo.get_model("xyz")
    with pytest.raises(ValueError, match="Did you mean SSD300_VGG16D_Weights.COCO_V1"):
        ssd_zoo.get_weight("SSD300_VGG16D_Weights.COCO_V2")


def test_weights_by_model():
    assert ssd_zoo.get_model_weights("ssd300_vgg16d") is ssd_zoo.SSD300_VGG16D_Weights
    assert ssd_zoo.get_model_weights(ssd_zoo.ssd300_vgg16d) is ssd_zoo.SSD300_VGG16D_Weights
    assert torchvision.models.get_model_weights(ssd_zoo.ssd300_vgg16d) is ssd_zoo.SSD300_VGG16D_Weights
    entry = ssd_zoo.get_weight("SSD300_VGG16D_Weights.COCO_V1")
    assert entry is ssd_zoo.SSD300_VGG16D_Weights.COCO_V1 is ssd_zoo.SSD300_VGG16D_Weights.DEFAULT
    assert ssd_zoo.SSD300_VGG16D_Weights.verify("SSD300_VGG16D_Weights.COCO_V1") is entry
    assert isinstance(entry, torchvision.models.WeightsEnum)


def test_builders_without_weights_have_an_empty_enum():
    enum = ssd_zoo.get_model_weights("ssd300_resnet18")
    assert enum is torchvision.models.get_model_weights(ssd_zoo.ssd300_resnet18)
    assert list(enum) == []
    with pytest.raises(TypeError, match="no published weights"):
        ssd_zoo.ssd300_resnet18(weights=ssd_zoo.SSD300_VGG16D_Weights.COCO_V1)


def test_names_are_taken_once():
    def ssd300_vgg16d():
        pass

    with pytest.raises(ValueError, match="'ssd300_vgg16d' is already registered"):
        ssd_zoo.register_model(ssd300_vgg16d)


def test_torchvision_lists_ours_by_their_home():
    # Its filter asks for the package that holds a builder's file. Another name of that file would break pickles.
    theirs = set(torchvision.models.list_models(module=torchvision.models.detection))
    ours = set(torchvision.models.list_models(module=ssd_zoo.models))
    assert ours == set(ssd_zoo.list_models()) & set(ssd_zoo.__all__) - theirs
    assert "ssd300_vgg16d" in ours
    assert "ssd300_vgg16" in theirs
    assert pickle.loads(pickle.dumps(ssd_zoo.ssd300_vgg16d)) is ssd_zoo.ssd300_vgg16d
    assert set(torchvision.models.list_models()) >= ours | theirs


def test_transforms_make_what_models_take(photo):
    from PIL import Image

    image = ssd_zoo.SSD300_VGG16D_Weights.COCO_V1.transforms()(Image.open(photo))
    assert image.shape[0] == 3
    assert 0 <= image.min() < image.max() <= 1
