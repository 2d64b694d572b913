"""Makes the weights `SSDLite300_MobileNet_V2_Weights.BCCD_V1` from a run of `recipes/bccd.sh`.

    python examples/make_bccd_weights.py runs/bccd/best

Convolutions are kept in half precision, norms and biases in float32, and so is what is measured then:

    ssd-zoo evaluate DATA/bccd --split test --model ssdlite300_mobilenet_v2 --weights BCCD_V1
"""

import argparse
from pathlib import Path

from safetensors.torch import save_file

from ssd_zoo import from_pretrained

OUTPUT = Path(__file__).parents[1] / "ssd_zoo/zoo/packaged/ssdlite300_mobilenet_v2_bccd_v1.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of the saved model")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()

    state = from_pretrained(args.model).state_dict()
    state = {name: t.half() if t.ndim == 4 else t for name, t in state.items() if t.is_floating_point()}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, args.output, metadata={"format": "pt"})
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
