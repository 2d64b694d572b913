"""Starts `train_tiny.py` in processes of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("train_tiny.py")


def start(output, *launcher, environment=None, **options):
    variables = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[1]), *sys.path]),
        **(environment or {}),
    }
    command = [sys.executable, *launcher, str(SCRIPT), str(output), json.dumps(options)]
    return subprocess.Popen(
        command,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Shells start jobs in the background with this signal ignored, and processes inherit it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process, *expected):
    told = process.communicate(timeout=300)[0]
    assert process.returncode in (expected or [0]), told
    return told


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
