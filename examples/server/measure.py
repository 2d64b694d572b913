"""Measure a server under load, against the same model called for one image at a time.

    python examples/server/measure.py detector.onnx photos --clients 1 4 --seconds 20

It starts `serve.py` on a free port of this machine, and each client sends one photo after the other. Lines are
throughput, and the median and 99th percentile of the time from the request to the answer.
"""

import argparse
import contextlib
import http.client
import io
import itertools
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ssd_zoo.data import find_images, read_image
from ssd_zoo.prediction import open_detector
from ssd_zoo.prediction.batch import detect_batch


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="what serve.py serves")
    parser.add_argument("photos", type=Path, help="folder of images")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4], help="numbers of clients at once")
    parser.add_argument("--seconds", type=float, default=20, help="how long each line is measured")
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args()
    contents = [file.read_bytes() for file in find_images([args.photos])]

    print("| Calls | images/s | p50, ms | p99, ms |\n|---|---|---|---|")
    show("in the process, one at a time", *one_at_a_time(args.model, contents, args.seconds))
    with serving(args.model, args.batch_size) as port:
        for number in args.clients:
            what = f"server, {number} client{'s' if number > 1 else ''}"
            show(what, *under_load(port, contents, number, args.seconds))


def show(what, seconds, took):
    p50, p99 = np.percentile(took, [50, 99]) * 1000
    print(f"| {what} | {len(took) / seconds:.1f} | {p50:.1f} | {p99:.1f} |", flush=True)


def one_at_a_time(name, contents, seconds):
    """Decode and detect; return the time that passed and each call's."""
    model = open_detector(name, score_thresh=0.5)

    def call(content):
        detect_batch(model, [read_image(io.BytesIO(content))])

    call(contents[0])
    return repeat(call, contents, time.perf_counter() + seconds)


def repeat(call, contents, end):
    took, began = [], time.perf_counter()
    sources = itertools.cycle(contents)
    while (start := time.perf_counter()) < end:
        call(next(sources))
        took.append(time.perf_counter() - start)
    return start - began, took


def under_load(port, contents, number, seconds):
    def client(i):
        connection = http.client.HTTPConnection("127.0.0.1", port)

        def call(content):
            connection.request("POST", "/detect", content)
            response = connection.getresponse()
            if response.status != 200:
                raise RuntimeError(f"status {response.status}: {response.read().decode()}")
            response.read()

        return repeat(call, contents[i::number] or contents, end)

    end = time.perf_counter() + seconds
    with ThreadPoolExecutor(number) as pool:
        results = list(pool.map(client, range(number)))
    return max(passed for passed, _ in results), [one for _, took in results for one in took]


@contextlib.contextmanager
def serving(model, batch_size):
    """Start the server; give its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, Path(__file__).with_name("serve.py"), model, "--port", port, "--batch-size", batch_size]
    process = subprocess.Popen(list(map(str, command)))
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if process.poll() is not None:
                raise SystemExit("The server did not start.")
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
