"""Write NVIDIA Triton's model repository for an exported ONNX file.

    python examples/server/triton_repository.py detector.onnx repository
    docker run --gpus all -p 8000:8000 -v $PWD/repository:/models \
        nvcr.io/nvidia/tritonserver:25.09-py3 tritonserver --model-repository=/models

Triton forms batches of what waits, and refuses requests when its queue is full.
"""

import argparse
import shutil
from pathlib import Path

import onnxruntime

from ssd_zoo.deploy import load

TYPES = {
    "tensor(float)": "TYPE_FP32",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(int64)": "TYPE_INT64",
    "tensor(bool)": "TYPE_BOOL",
}


def triton_config(file: Path, *, batch_size: int = 8, waiting: int = 64) -> str:
    """Return the text of `config.pbtxt`.

    Args:
        file: An ONNX file of `export`.
        batch_size: Most images per batch.
        waiting: Most requests in the queue; Triton refuses more. Without batches it has no such limit.

    Raises:
        ValueError: If the file was not written by `export`, or is of a model of clips.
    """
    if load(file).description.state:
        raise ValueError(f"{file} is of a model of clips, whose state Triton would have to pass on.")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    inputs, outputs = session.get_inputs(), session.get_outputs()
    # Triton batches only models whose every tensor has an axis of images; the default boxes have none.
    batches = all(isinstance(tensor.shape[0], str) for tensor in (*inputs, *outputs))
    lines = [f'name: "{file.stem}"', 'backend: "onnxruntime"', f"max_batch_size: {batch_size if batches else 0}"]
    for kind, tensors in (("input", inputs), ("output", outputs)):
        blocks = ",\n".join(tensor_block(tensor, batches) for tensor in tensors)
        lines.append(f"{kind} [\n{blocks}\n]")
    if batches:
        lines.append(f"dynamic_batching {{\n  default_queue_policy {{ max_queue_size: {waiting} }}\n}}")
    return "\n".join(lines) + "\n"


def tensor_block(tensor: onnxruntime.NodeArg, batches: bool) -> str:
    shape = [side if isinstance(side, int) else -1 for side in tensor.shape]
    fields = [f'name: "{tensor.name}"', f"data_type: {TYPES[tensor.type]}"]
    if batches and len(shape) == 1:
        # Triton has no empty shapes.
        fields += ["dims: [ 1 ]", "reshape: { shape: [ ] }"]
    else:
        fields.append(f"dims: [ {', '.join(map(str, shape[batches:]))} ]")
    return "  {\n" + "\n".join(f"    {field}" for field in fields) + "\n  }"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="ONNX file of ssd-zoo export")
    parser.add_argument("repository", type=Path, help="folder of Triton's models")
    parser.add_argument("--batch-size", type=int, default=8, help="most images per batch (default: %(default)s)")
    parser.add_argument("--waiting", type=int, default=64, help="most requests in the queue (default: %(default)s)")
    args = parser.parse_args()
    config = triton_config(args.file, batch_size=args.batch_size, waiting=args.waiting)
    folder = args.repository / args.file.stem
    (folder / "1").mkdir(parents=True, exist_ok=True)
    shutil.copy(args.file, folder / "1" / "model.onnx")
    (folder / "config.pbtxt").write_text(config)
    print(folder)


if __name__ == "__main__":
    main()
