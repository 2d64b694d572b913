"""The weights that ship for blood cells have the AP that their entry says."""

import pytest

import ssd_zoo
from ssd_zoo.data import open_dataset

pytest.importorskip("faster_coco_eval")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_shipped_weights(test_data):
    from ssd_zoo.training import evaluate

    weights = ssd_zoo.SSDLite300_MobileNet_V2_Weights.BCCD_V1
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights=weights).eval()
    dataset = open_dataset(test_data / "bccd", "test", categories=model.categories)
    found = evaluate(model, dataset).metrics
    for name in ("AP", "AP50"):
        assert 100 * found[name] == pytest.approx(weights.meta["metrics"]["BCCD, test"][name], abs=0.1)
