"""Measure peak memory and import time in separate processes."""

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

PEAK_OF = ("inference", "training")


def memory(models: list[str], *, seconds: float, compile: bool) -> Iterator[dict[str, Any]]:  # noqa: ARG001
    """Measure peak memory of calls and training steps at batch 8.

    Values are in MB, for tensors, and on a CPU also for the process.
    """
    for name in models:
        for what in PEAK_OF:
            peaks = {whose: _measure(name, whose, what) for whose in ("torchvision", "ssd_zoo")}
            yield {"model": name, "what": what, "batch": 8, "peaks": peaks}


def _measure(name: str, whose: str, what: str) -> dict[str, float]:
    command = [sys.executable, __file__, name, whose, what]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _peaks(name: str, whose: str, what: str) -> dict[str, float]:
    from models import build, make_images, make_targets

    ours, theirs = build(name)
    model = (ours if whose == "ssd_zoo" else theirs).train(what == "training")
    del ours, theirs
    images, targets = make_images(8), make_targets(8)

    def run() -> None:
        if what == "training":
            sum(model(images, targets).values()).backward()
            model.zero_grad()
        else:
            with torch.inference_mode():
                model(images)

    for _ in range(3):
        run()
    if torch.cuda.is_available():
        return {"tensors": torch.cuda.max_memory_allocated() / 2**20}
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"tensors": _peak_of_tensors(run) / 2**20, "process": process}


def _peak_of_tensors(run: Callable[[], None]) -> int:
    """Measure the peak memory of tensors allocated during a run, in bytes.

    It is reproducible, while the peak of the process varies between runs.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(trace))
        events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["name"] == "[memory]"]
    events.sort(key=lambda event: event["ts"])
    return max(accumulate(event["args"]["Bytes"] for event in events))


def imports(models: list[str], *, seconds: float, compile: bool) -> Iterator[dict[str, Any]]:  # noqa: ARG001
    """Time `import torchvision` and `import ssd_zoo` in fresh processes."""
    from timing import summary

    code = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
    times: dict[str, list[float]] = {"torchvision": [], "ssd_zoo": []}
    for _ in range(9):
        for package, values in times.items():
            command = [sys.executable, "-c", code.format(package)]
            values.append(1e3 * float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    yield {"times": {package: summary(values[1:]) for package, values in times.items()}}


if __name__ == "__main__":
    print(json.dumps(_peaks(*sys.argv[1:])))
