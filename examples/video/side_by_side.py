"""Show what a model of images and a model of clips detect in the same bad frames, side by side.

python examples/video/side_by_side.py ../astronaut.jpg --kind noise --strength 0.6 --output side_by_side.webp
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from degrade import KINDS, degrade
from free_labels import is_photo, pan
from PIL import Image

import ssd_zoo
from ssd_zoo.data import draw_detections, read_clip, read_image
from ssd_zoo.video import detect_stream


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path, help="a video, or a photo to pan over")
    parser.add_argument("--kind", choices=KINDS, default="noise")
    parser.add_argument("--strength", type=float, default=0.6)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--score-thresh", type=float, default=0.5)
    parser.add_argument("--output", type=Path, default=Path("side_by_side.webp"))
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    clip = pan(read_image(args.clip), args.frames, generator) if is_photo(args.clip) else read_clip(args.clip)
    frames = degrade(F.interpolate(clip[: args.frames], (300, 300)), args.kind, args.strength, generator)
    models = (
        ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", score_thresh=args.score_thresh).eval(),
        ssd_zoo.ssdlite300_mobilenet_v2_3d(weights="COCO_CLIPS_V1", score_thresh=args.score_thresh).eval(),
    )
    pictures = [Image.new("RGB", (606, 300), "white") for _ in frames]
    for left, model in zip((0, 306), models, strict=True):
        shown = 0
        for picture, (frame, found) in zip(pictures, detect_stream(model, frames), strict=True):
            picture.paste(draw_detections(frame, found, model.categories), (left, 0))
            shown += bool(len(found["scores"]))
        print(f"{type(model.backbone).__name__}: something found in {shown} of {len(frames)} frames")
    pictures[0].save(args.output, save_all=True, append_images=pictures[1:], duration=100, loop=0, quality=60, method=6)


if __name__ == "__main__":
    main()
