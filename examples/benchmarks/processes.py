"""What needs a process of its own: the peak of memory, and the time of an import."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import torch

PEAK_OF = ("inference", "training")


def memory(models: list[str], *, seconds: float, compile: bool) -> Iterator[dict[str, Any]]:  # noqa: ARG001
    """Peak memory in MB of three whole calls or steps at batch 8: of the process, on a GPU of its tensors."""
    for name in models:
        for what in PEAK_OF:
            peaks = {whose: _measure(name, whose, what) for whose in ("torchvision", "ssd_zoo")}
            yield {"model": name, "what": what, "batch": 8, "peaks": peaks}


def _measure(name: str, whose: str, what: str) -> float:
    command = [sys.executable, __file__, name, whose, what]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _peak(name: str, whose: str, what: str) -> float:
    from models import build, make_images, make_targets

    ours, theirs = build(name)
    model = (ours if whose == "ssd_zoo" else theirs).train(what == "training")
    del ours, theirs
    images, targets = make_images(8), make_targets(8)
    for _ in range(3):
        if what == "training":
            sum(model(images, targets).values()).backward()
            model.zero_grad()
        else:
            with torch.inference_mode():
                model(images)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def imports(models: list[str], *, seconds: float, compile: bool) -> Iterator[dict[str, Any]]:  # noqa: ARG001
    """Time of `import torchvision` and of `import ssd_zoo`, each in a fresh process."""
    from timing import summary

    code = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
    times: dict[str, list[float]] = {"torchvision": [], "ssd_zoo": []}
    for _ in range(9):
        for package, values in times.items():
            command = [sys.executable, "-c", code.format(package)]
            values.append(1e3 * float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    yield {"times": {package: summary(values[1:]) for package, values in times.items()}}


if __name__ == "__main__":
    print(json.dumps(_peak(*sys.argv[1:])))
