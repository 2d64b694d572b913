"""Starts programs in processes of their own."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

HERE = Path(__file__).parent
SCRIPT = HERE / "train_tiny.py"


def fork(function, *args, log=os.devnull, **environment):
    """Calls a function in a copy of a process that has imported `ssd_zoo` alone; what it prints goes to a file."""
    context = multiprocessing.get_context("forkserver")
    # Importing takes longer than what most of the processes do.
    context.set_forkserver_preload(["ssd_zoo.cli.detect", "ssd_zoo.training.fit", "accelerate"])
    start_server()
    process = context.Process(target=_call, args=(str(log), environment, function, args))
    process.start()
    return process


def start_server():
    """Starts the process that is forked; it imports from the folder that it starts in, too."""
    before = os.getcwd()
    os.chdir(HERE)
    try:
        forkserver.ensure_running()
    finally:
        os.chdir(before)


def _call(log, environment, function, args):
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream.fileno())
    os.environ.update(environment)
    # Else workers of data loaders come from another such server, and outlive a training that is killed.
    multiprocessing.set_start_method("fork", force=True)
    # Shells start jobs in the background with this signal ignored, and processes inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        function(*args)
    except KeyboardInterrupt:
        sys.exit(130)


def join(process):
    """Waits for a forked process; returns its exit code, which is minus the number of a signal that killed it."""
    process.join(300)
    return process.exitcode


def start(output, *launcher, environment=None, **options):
    variables = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
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
