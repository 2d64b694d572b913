"""Time contenders in turn, and describe the machine."""

import gc
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision

import ssd_zoo

Contenders = dict[str, Callable[[], object]]


def alternate(
    contenders: Contenders, *, seconds: float, at_least: int = 5, twice: bool = False
) -> dict[str, dict[str, float]]:
    """Time contenders in turn, in random order within each round.

    This way, other load on the machine affects all contenders equally.

    Args:
        contenders: Functions by name. Each is warmed up by two runs, or by three if a run takes less than a second.
        seconds: Time after which no new round starts.
        at_least: Least number of rounds.
        twice: Whether each run follows another one that is not timed, so that threads of the contender before it rest.

    Returns:
        For each contender, the median and quartiles of its times in milliseconds, and the number of rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        _warm_up(run)
    gc.collect()
    # A contender that follows another with the same weights finds them in the cache: vary the order.
    order = random.Random(0)
    start = time.perf_counter()
    while len(next(iter(times.values()))) < at_least or time.perf_counter() - start < seconds:
        for name, run in order.sample(list(contenders.items()), len(contenders)):
            if twice:
                run()
            _wait()
            before = time.perf_counter()
            run()
            _wait()
            times[name].append(1e3 * (time.perf_counter() - before))
    return {name: summary(values) for name, values in times.items()}


def _warm_up(run: Callable[[], object]) -> None:
    """Warm up: the first run compiles, the second records CUDA graphs."""
    run()
    start = time.perf_counter()
    run()
    _wait()
    if time.perf_counter() - start < 1:
        run()


def summary(values: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high, "least": min(values), "runs": len(values)}


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine() -> dict[str, str | int]:
    """Describe versions and hardware of the measurement."""
    described = {
        "ssd_zoo": ssd_zoo.__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "vector units": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "GFLOP/s of a matrix product": round(_matrix_product()),
    }
    if torch.cuda.is_available():
        described["gpu"] = torch.cuda.get_device_name()
        described["cuda"] = str(torch.version.cuda)
    return described


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _matrix_product(side: int = 2048) -> float:
    """Measure the matrix product in GFLOP/s, an upper bound for convolutions."""
    matrix = torch.rand(side, side)
    times = alternate({"product": lambda: matrix @ matrix}, seconds=2)
    return 2 * side**3 / times["product"]["median"] / 1e6
