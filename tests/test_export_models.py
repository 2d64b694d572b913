"""Every builder exports to ONNX, and its file's raw output is the model's."""

import pytest
import torch
from test_models import NAMES, small_size
from test_optimize import build

from ssd_zoo.deploy import export, load
from ssd_zoo.deploy.formats import FORMATS

pytest.importorskip("onnxscript", reason='pip install "ssd_zoo[deploy]"')
pytest.importorskip("onnxruntime", reason='pip install "ssd_zoo[deploy]"')

PHOTO_LIKE = torch.rand(3, 3, 90, 120, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("_3d")])
@torch.no_grad()
def test_raw_output_is_the_models(name, tmp_path):
    model = build(name, **small_size(name))
    file = export(model, tmp_path / "model.onnx", format="onnx", nms="outside")
    opened = FORMATS["onnx"].open(file, 1)
    for images in (PHOTO_LIKE[:1], PHOTO_LIKE):
        batch = model.prepare(images)
        found = opened.run(batch * model.image_std + model.image_mean)
        for key, value in model.forward_raw(batch).items():
            assert (found[key] - value).abs().max() <= 1e-4 * value.abs().max()
    assert torch.equal(load(file).default_boxes, model.default_boxes)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("_3d")])
def test_models_of_clips_are_refused(name, tmp_path):
    model = build(name)
    with pytest.raises(ValueError, match=r"ssd_zoo.video.export_step"):
        export(model, tmp_path / "model.onnx", format="onnx")
    assert not list(tmp_path.iterdir())
