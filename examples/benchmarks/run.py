"""Benchmark ssd_zoo against torchvision.

    python examples/benchmarks/run.py --json results.json --docs docs/benchmarks.md

Use an otherwise idle machine. A run takes half an hour on two cores, most of it for compilation. --no-compile skips
compiled models, and --parts selects benchmarks. If there is a GPU, models run on it. Tables are printed and inserted
into the page of --docs. --from-json makes tables of earlier results.
"""

import argparse
import json
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from loading import loading
from models import PAIRS
from processes import imports, memory
from speed import fixed, inference, postprocessing, training
from tables import render, write_into
from timing import machine

from ssd_zoo.training import keep_memory

# A new part needs a generator of rows here and a table function in tables.py.
PARTS = {
    "inference": inference,
    "training": training,
    "postprocessing": postprocessing,
    "fixed": fixed,
    "loading": loading,
    "memory": memory,
    "imports": imports,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--seconds", type=float, default=20, help="seconds per comparison (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--keep-memory", action="store_true", help="run all contenders within keep_memory()")
    parser.add_argument("--json", type=Path, help="file for results; its results of other parts are kept")
    parser.add_argument("--from-json", type=Path, help="file to read results from instead of running")
    parser.add_argument("--docs", type=Path, help="page to insert the tables into, between its markers")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.from_json:
        results = json.loads(args.from_json.read_text())
    else:
        results = json.loads(args.json.read_text()) if args.json and args.json.is_file() else {}
        results["machine"] = machine() | ({"memory": "kept"} if args.keep_memory else {})
        with keep_memory() if args.keep_memory else nullcontext():
            run(results, args)
    text = render(results)
    print(text)
    if args.docs:
        write_into(args.docs, text)


def run(results: dict[str, Any], args: argparse.Namespace) -> None:
    for part in args.parts:
        results[part] = []
        for row in PARTS[part](args.models, seconds=args.seconds, compile=args.compile):
            results[part].append(row)
            print(part, json.dumps(row), flush=True)
            if args.json:
                args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    # Compilers' warnings would clutter the printed results.
    warnings.simplefilter("ignore")
    main()
