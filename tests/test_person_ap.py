"""The person detector's AP on coco128 is the original's.

The figures are those of the frozen TensorFlow graph on the same 300 × 300 pixels, computed by running it (TensorFlow
2.21, pycocotools 2.0.11); see the README of the test data's weights/ssdlite_mobilenet_v2_person.
"""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("faster_coco_eval")
pytestmark = pytest.mark.usefixtures("one_thread")

EXAMPLE = Path(__file__).parents[1] / "examples" / "evaluate_person.py"
ORIGINAL = {"AP": 0.1962, "AP50": 0.3861, "AP75": 0.1929}


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location(EXAMPLE.stem, EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_original_variables(example, test_data):
    variables = test_data / "weights/ssdlite_mobilenet_v2_person/variables.safetensors"
    assert example.evaluate(example.build(variables), test_data) == pytest.approx(ORIGINAL, abs=0.0005)


def test_shipped_weights(example, test_data):
    assert example.evaluate(example.build(), test_data) == pytest.approx(ORIGINAL, abs=0.002)
