"""Test every timm model as a backbone of `ssd_timm`.

The detectors are built on the meta device, without downloads and almost without computation.

    python examples/sweep_timm.py                     # all models, about an hour
    python examples/sweep_timm.py "resnet*" "vit_*"   # those that match a pattern

Results are saved to timm_sweep.json after every model, and a second run continues there. A table is saved to
timm_sweep.md.
"""

import argparse
import json
import logging
import signal
import warnings
from collections import defaultdict
from pathlib import Path

import timm
import torch

import ssd_zoo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("patterns", nargs="*", default=["*"], help="shell-style patterns of timm's model names")
    parser.add_argument("--size", type=int, default=320, help="side of the input in pixels")
    parser.add_argument("--timeout", type=int, default=120, help="seconds allowed for a model")
    parser.add_argument("--output", type=Path, default=Path("timm_sweep.json"), help="JSON file, plus a table as .md")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    signal.signal(signal.SIGALRM, stop)

    names = sorted({name for pattern in arguments.patterns for name in timm.list_models(pattern)})
    results = json.loads(arguments.output.read_text())["models"] if arguments.output.exists() else {}
    for i, name in enumerate(names):
        if name not in results:
            results[name] = try_model(name, arguments.size, arguments.timeout)
            print(f"{i + 1}/{len(names)} {name}: {results[name].get('reason', 'works')}", flush=True)
            versions = {"ssd_zoo": ssd_zoo.__version__, "timm": timm.__version__, "torch": torch.__version__}
            results = dict(sorted(results.items()))
            arguments.output.write_text(json.dumps({"versions": versions, "size": arguments.size, "models": results}))
    arguments.output.with_suffix(".md").write_text(table(results, arguments.size))


def try_model(name: str, size: int, timeout: int) -> dict[str, object]:
    """Build a detector; return its strides and sizes, or the error."""
    signal.alarm(timeout)
    try:
        with torch.device("meta"):
            model = ssd_zoo.ssd_timm(name, size=size, weights_backbone=None, num_classes=2)
    except Exception as error:
        return {"works": False, "reason": " ".join(str(error).split())}
    finally:
        signal.alarm(0)
    return {
        "works": True,
        "strides": model.backbone.net.feature_info.reduction(),
        "default_boxes": len(model.default_boxes),
        "backbone_params": sum(parameter.numel() for parameter in model.backbone.net.parameters()),
    }


def table(results: dict[str, dict[str, object]], size: int) -> str:
    """Format results as a Markdown table, with a list of errors.

    The table has one row per family, which is one file of timm.
    """
    families = defaultdict(list)
    for name in results:
        families[timm.models.model_entrypoint(name).__module__.rpartition(".")[2]].append(name)
    head = f"| family | models | work at {size} | at another size | not at all |"
    rows = [f"| {family} | {counts(names, results)} |" for family, names in sorted(families.items())]
    reasons = [f"- `{name}`: {result['reason']}" for name, result in results.items() if not result["works"]]
    lines = [head, "|---|---:|---:|---:|---:|", *rows, f"| all | {counts(list(results), results)} |", "", *reasons]
    return "\n".join(lines) + "\n"


def counts(names: list[str], results: dict[str, dict[str, object]]) -> str:
    working = sum(1 for name in names if results[name]["works"])
    elsewhere = sum(1 for name in names if "one that works is" in str(results[name].get("reason")))
    return " | ".join(map(str, (len(names), working, elsewhere, len(names) - working - elsewhere)))


def stop(*_: object) -> None:
    raise TimeoutError("took too long")


if __name__ == "__main__":
    main()
