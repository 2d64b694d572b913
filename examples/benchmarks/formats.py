"""Export every builder to every format, compare raw output with the model's, and write the table of docs/deploy.md.

    python examples/benchmarks/formats.py --json formats.json --docs docs/deploy.md

Models are small and have random weights. An entry is the largest difference of an output, divided by the largest value
of that output. Core ML does not run here: its files are converted only. Entries that the JSON file holds already are
not measured again, so an interrupted run can continue.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from tables import table, write_into
from torch import Tensor, nn

import ssd_zoo
from ssd_zoo.deploy import export
from ssd_zoo.deploy.formats import FORMATS
from ssd_zoo.deploy.graph import NEXT

BEGIN, END = "<!-- builders: written by examples/benchmarks/formats.py -->", "<!-- end of builders -->"
CONVERTED = "converted"
# AOTInductor takes minutes for each builder.
NAMES = [name for name in FORMATS if name != "aoti"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="results; read first, if the file exists")
    parser.add_argument("--models", default=",".join(ssd_zoo.list_models()), help="builders (default: all)")
    parser.add_argument("--formats", default=",".join(NAMES), help="formats (default: %(default)s)")
    parser.add_argument("--docs", type=Path, help="page to write the table into")
    args = parser.parse_args()
    results: dict[str, dict[str, float | str]] = json.loads(args.json.read_text()) if args.json.exists() else {}
    kinds = args.formats.split(",")
    for kind in kinds:
        for name in args.models.split(","):
            if kind not in results.setdefault(name, {}):
                try:
                    results[name][kind] = largest_difference(name, kind)
                except ValueError as error:
                    results[name][kind] = str(error)
                print(f"{name}, {kind}: {results[name][kind]}", flush=True)
                # A refusal is not kept: it may be mended.
                kept = {
                    of: {k: value for k, value in row.items() if isinstance(value, float) or value == CONVERTED}
                    for of, row in results.items()
                }
                args.json.write_text(json.dumps(kept, indent=1) + "\n")
    lines = [[f"`{name}`", *(cell(row.get(kind, "")) for kind in kinds)] for name, row in sorted(results.items())]
    text = table(["Builder", *(f"`{kind}`" for kind in kinds)], lines)
    print(text)
    if args.docs is not None:
        write_into(args.docs, text, BEGIN, END)


def cell(value: float | str) -> str:
    if isinstance(value, float):
        return f"{value:.0e}" if value else "0"
    return value if value in ("", CONVERTED) else "–"


@torch.no_grad()
def largest_difference(name: str, format: str) -> float | str:
    model = build(name)
    with tempfile.TemporaryDirectory() as folder:
        file = export(model, Path(folder) / f"model{FORMATS[format].suffix}", format=format, nms="outside")
        if not FORMATS[format].runs:
            return CONVERTED
        opened = FORMATS[format].open(file, torch.get_num_threads(), 1)
        images = torch.rand(3, model.in_chans, *model.size, generator=torch.Generator().manual_seed(0))
        largest = 0.0
        state = expected_state = None
        for frames in (images, images.flip(0)):
            batch = (frames - model.image_mean) / model.image_std
            if hasattr(model.backbone, "step"):
                expected, expected_state = model.step_raw(batch, [1] * len(batch), expected_state)
                blank = {key: torch.zeros_like(value) for key, value in expected_state.items()}
                found = opened.run({"images": frames, **(blank if state is None else state)})
                state = {key: found[NEXT + key] for key in expected_state}
            else:
                expected, found = model.forward_raw(batch), opened.run({"images": frames})
            largest = max(largest, *(relative(found[key], value) for key, value in expected.items()))
    return largest


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


def build(name: str) -> ssd_zoo.SSD:
    """Build a small model whose norms are not the identity, as they are at first."""
    torch.manual_seed(0)
    options = {"weights": None, "weights_backbone": None, "num_classes": 4}
    try:
        model = ssd_zoo.get_model(name, size=128, **options)
    except ValueError:
        model = ssd_zoo.get_model(name, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.eval()


if __name__ == "__main__":
    main()
