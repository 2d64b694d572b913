"""Make the weights files that are included in ssd_zoo.

    python examples/make_packaged_weights.py DATA/weights/tfjs_ssdlite_mobilenet_v2_coco \
        ssdlite300_mobilenet_v2_coco_tf_v1 --images DATA/coco128/images
    python examples/make_packaged_weights.py runs/bccd/best ssdlite300_mobilenet_v2_bccd_v1
    python examples/make_packaged_weights.py runs/clips ssdlite300_mobilenet_v2_3d_coco_clips_v1 \
        --base SSDLite300_MobileNet_V2_Weights.COCO_TF_V1

The source is a checkpoint of another project or a saved model, here those of `examples/recipes/bccd.sh` and
`examples/video/free_labels.py`. Tensors equal to those of `--base` are left out. If the checkpoint's norms are folded,
a forward pass over the images restores them. Convolution kernels are stored in float16, norms and biases in float32.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from ssd_zoo import from_pretrained, get_weight, load_checkpoint, restore_norms
from ssd_zoo.data import find_images, read_image

PACKAGED = Path(__file__).parents[1] / "ssd_zoo/weights/packaged"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="checkpoint of another project, or folder of a saved model")
    parser.add_argument("name", help="name of the weights file, without extension")
    parser.add_argument("--images", type=Path, help="folder of images that restore folded norms")
    parser.add_argument("--base", help="full name of the weights whose tensors are left out")
    parser.add_argument("--output", type=Path, default=PACKAGED)
    args = parser.parse_args()

    model = from_pretrained(args.source) if (args.source / "config.json").exists() else load_checkpoint(args.source)
    if args.images:
        restore_norms(model, map(read_image, find_images([args.images])))
    known = get_weight(args.base).get_state_dict() if args.base else {}
    changed = {name: t for name, t in model.state_dict().items() if not (name in known and torch.equal(t, known[name]))}
    state = {name: t.half() if t.ndim == 4 else t for name, t in changed.items() if t.is_floating_point()}
    file = args.output / f"{args.name}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, file, metadata={"format": "pt"})
    print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
