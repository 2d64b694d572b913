"""The detector of COCO that ships has the AP that it had at its source.

The figures were measured with the original's float32 weights; see the README of the test data's weights.
"""

import json

import pytest

import ssd_zoo
from ssd_zoo.cli.main import main
from ssd_zoo.data import open_dataset

pytest.importorskip("faster_coco_eval")
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


def measure(model, dataset):
    from ssd_zoo.training import evaluate

    found = evaluate(model, dataset).metrics
    return found["AP"], found["AP50"]


@pytest.fixture(scope="module")
def coco128(test_data):
    return open_dataset(test_data / "coco128")


def test_as_shipped(coco128):
    weights = ssd_zoo.SSDLite300_MobileNet_V2_Weights.COCO_TF_V1
    ap, ap50 = measure(ssd_zoo.ssdlite300_mobilenet_v2(weights=weights).eval(), coco128)
    assert ap == pytest.approx(0.336, abs=0.003)
    assert ap50 == pytest.approx(0.497, abs=0.003)
    told = weights.meta["metrics"]["COCO128"]
    assert 100 * ap == pytest.approx(told["AP"], abs=0.1)
    assert 100 * ap50 == pytest.approx(told["AP50"], abs=0.1)


def test_in_float32(coco128, test_data):
    original = ssd_zoo.load_checkpoint(test_data / "weights/tfjs_ssdlite_mobilenet_v2_coco")
    ap, ap50 = measure(original, coco128)
    assert ap == pytest.approx(0.336, abs=0.002)
    assert ap50 == pytest.approx(0.497, abs=0.002)


def test_persons_alone(coco128, test_data):
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", categories=["background", "person"]).eval()
    ap, ap50 = measure(model, coco128)
    assert ap == pytest.approx(0.308, abs=0.003)
    assert ap50 == pytest.approx(0.557, abs=0.003)


def test_the_commands(test_data, tmp_path, capsys):
    data, found = str(test_data / "coco128"), str(tmp_path / "found.json")
    assert main(["detect", f"{data}/images", "--score-thresh", "0.001", "--json", found, "--quiet"]) == 0
    assert (
        main(
            [
                "evaluate",
                "--annotations",
                f"{data}/instances.json",
                "--results",
                found,
                "--json",
                str(tmp_path / "ap.json"),
            ]
        )
        == 0
    )
    figures = json.loads((tmp_path / "ap.json").read_text())
    assert figures["AP"] == pytest.approx(0.336, abs=0.003)
    assert figures["AP50"] == pytest.approx(0.497, abs=0.003)


def test_other_data_by_names(test_data):
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1").eval()
    _, ap50 = measure(model, open_dataset(test_data / "voc_sample"))
    assert ap50 == pytest.approx(0.846, abs=0.005)
