"""Measures ssd_zoo against torchvision, prints tables, and writes them as JSON and into the docs.

    python examples/benchmarks/run.py --json results.json --docs docs/benchmarks.md

On a quiet machine, that takes half an hour on two cores, most of it to compile; --no-compile leaves that out, and
--parts chooses. Where there is a GPU, all of it runs there. --from-json makes tables of results that are there already.
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
from speed import inference, postprocessing, training
from tables import render, write_into
from timing import machine

from ssd_zoo.training import keep_memory

# To add a part: a generator of rows here, and how its table looks in tables.py.
PARTS = {
    "inference": inference,
    "training": training,
    "postprocessing": postprocessing,
    "loading": loading,
    "memory": memory,
    "imports": imports,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--seconds", type=float, default=20, help="time of one comparison, %(default)s by default")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads, %(default)s by default")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--keep-memory", action="store_true", help="run all contenders within keep_memory()")
    parser.add_argument("--json", type=Path, help="file to write results to; parts that it has and are not run stay")
    parser.add_argument("--from-json", type=Path, help="file to read results from instead of running")
    parser.add_argument("--docs", type=Path, help="page to write tables into, between its marks")
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
    # What compilers have to say about themselves is no result.
    warnings.simplefilter("ignore")
    main()
