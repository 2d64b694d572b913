"""Exported files in their runtimes alone, as other programs run them: with no code of this package."""

import numpy as np
import torch
from compare import assert_same_detections

from ssd_zoo.detector.postprocess.dispatch import postprocess_detections, score_boxes


def open_alone(file):
    """A function of the file's inputs, tensors by name, to its outputs."""
    if file.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        infer = lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))  # noqa: E731
    else:
        import openvino

        infer = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        names = [output.any_name for output in infer.outputs]

    def run(inputs):
        found = infer({name: value.contiguous().numpy() for name, value in inputs.items()})
        return {name: torch.from_numpy(np.array(found[name])) for name in names}

    return run


def assert_outputs_are_the_models(found, model, raw):
    """Outputs of a file, with NMS inside or outside, belong to the model's raw output for the same batch."""
    if "cls_logits" in found:
        assert torch.equal(found["default_boxes"], model.default_boxes)
        for key, value in raw.items():
            assert found[key].shape == value.shape
            assert (found[key] - value).abs().max() <= 1e-4 * value.abs().max()
        return
    scored, scales = score_boxes(raw, model.score_function), torch.ones(len(raw["cls_logits"]), 4)
    expected = postprocess_detections(scored, model.default_boxes, model.size, model._thresholds(), scales)
    assert found["exact"].all()
    cut = [{key: found[key][i, :count] for key in expected[i]} for i, count in enumerate(found["count"].tolist())]
    assert_same_detections(cut, expected)
    for i, count in enumerate(found["count"].tolist()):
        assert not any(found[key][i, count:].any() for key in expected[i])
