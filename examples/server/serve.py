"""Serve a detector over HTTP.

    pip install "ssd_zoo[deploy,server]"
    ssd-zoo export ssdlite300_mobilenet_v2 --format onnx --output detector.onnx
    python examples/server/serve.py detector.onnx
    curl --data-binary @photo.jpg http://127.0.0.1:8000/detect

The images that come in while the model runs are its next batch. Nothing waits for a batch to fill. The number of
requests that are read, or wait for the model, is bounded; further ones get the status 503.
"""

import argparse
import asyncio
import io
import os
import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from torch import Tensor, nn
from typing_extensions import TypedDict

from ssd_zoo.data import read_image
from ssd_zoo.prediction import open_detector, pick_device, pick_thresh
from ssd_zoo.prediction.batch import detect_batch
from ssd_zoo.prediction.results import result_rows

BINARY = {"requestBody": {"required": True, "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}}


class Found(TypedDict):
    """A detection: box as x, y, width, height in pixels of the image."""

    category_id: int
    category: str
    bbox: list[float]
    score: float


class Answer(TypedDict):
    """All detections in an image."""

    height: int
    width: int
    detections: list[Found]


class Batcher:
    """Run a model in a thread, each time on the images that have come in meanwhile."""

    def __init__(self, model: nn.Module, batch_size: int):
        self.model, self.batch_size = model, batch_size
        self.queue: queue.SimpleQueue[tuple[Tensor, Future]] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, image: Tensor) -> Future:
        future: Future = Future()
        self.queue.put((image, future))
        return future

    def _run(self):
        while True:
            batch = [self.queue.get()]
            while len(batch) < self.batch_size and not self.queue.empty():
                batch.append(self.queue.get())
            # Those whose client has left are cancelled.
            batch = [(image, future) for image, future in batch if future.set_running_or_notify_cancel()]
            try:
                results = detect_batch(self.model, [image for image, _ in batch])
            except Exception as error:
                for _, future in batch:
                    future.set_exception(error)
            else:
                for (_, future), found in zip(batch, results, strict=True):
                    future.set_result(found)


class Slots:
    """Count the requests that are being worked on, up to a limit."""

    def __init__(self, limit: int):
        self.limit, self.taken = limit, 0

    def __enter__(self):
        self.taken += 1

    def __exit__(self, *_):
        self.taken -= 1


def make_app(
    model: nn.Module,
    *,
    batch_size: int = 8,
    waiting: int = 32,
    max_bytes: int = 20_000_000,
    max_pixels: int = 16_000_000,
    body_seconds: float = 30,
) -> FastAPI:
    """Make the server of a model in evaluation mode. See `--help` for the arguments."""
    app = FastAPI(title="ssd_zoo")
    batcher, slots = Batcher(model, batch_size), Slots(waiting)
    decoders = ThreadPoolExecutor(os.cpu_count())

    @app.post("/detect", openapi_extra=BINARY)
    async def detect(request: Request) -> Answer:
        if slots.taken >= slots.limit:
            await read_body(request, 0, body_seconds)
            raise HTTPException(503, f"{waiting} requests are waiting already; try again.", {"Retry-After": "1"})
        with slots:
            content = await read_body(request, max_bytes, body_seconds)
            if content is None:
                raise HTTPException(413, f"The image has more than {max_bytes} bytes.")
            if not content:
                raise HTTPException(400, "The request has no body. Send the bytes of an image file as the body.")
            read = partial(read_image, max_pixels=max_pixels)
            try:
                image = await asyncio.get_running_loop().run_in_executor(decoders, read, io.BytesIO(content))
            except ValueError as error:
                raise HTTPException(400, str(error)) from error
            found = await asyncio.wrap_future(batcher.add(image))
        keys = Found.__annotations__
        rows = [{key: row[key] for key in keys} for row in result_rows(found, model.categories, 0, "")]
        return {"height": image.shape[1], "width": image.shape[2], "detections": rows}

    @app.get("/health")
    async def health() -> dict[str, int]:
        return {"requests": slots.taken, "limit": slots.limit}

    return app


async def read_body(request: Request, most: int, seconds: float) -> bytearray | None:
    """Read a request's body; return None if it has more bytes.

    It is read to its end all the same, because many clients look for the answer only after they have sent everything.
    """
    content, size = bytearray(), 0

    async def read() -> None:
        nonlocal size
        async for piece in request.stream():
            size += len(piece)
            if size <= most:
                content.extend(piece)

    try:
        await asyncio.wait_for(read(), seconds)
    except asyncio.TimeoutError as error:  # another one than TimeoutError in Python 3.10
        raise HTTPException(408, f"The body did not come within {seconds} s.") from error
    return content if size <= most else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="exported file, saved model, or name of a model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--score-thresh", type=float, help="least score (default: 0.5, or the model's own if higher)")
    parser.add_argument("--device", help="cpu, cuda, …")
    parser.add_argument("--batch-size", type=int, default=8, help="most images at once (default: %(default)s)")
    parser.add_argument("--waiting", type=int, default=32, help="most requests at once (default: %(default)s)")
    parser.add_argument("--max-bytes", type=int, default=20_000_000, help="largest file (default: %(default)s)")
    parser.add_argument("--max-pixels", type=int, default=16_000_000, help="largest image (default: %(default)s)")
    args = parser.parse_args()
    model = open_detector(args.model).to(pick_device(args.device))
    model.score_thresh = pick_thresh(model, args.score_thresh)
    limits = {"waiting": args.waiting, "max_bytes": args.max_bytes, "max_pixels": args.max_pixels}
    app = make_app(model, batch_size=args.batch_size, **limits)
    detect_batch(model, [torch.zeros(3, 64, 64, dtype=torch.uint8)])
    # Connections beyond these get 503 at once, before a byte is read.
    uvicorn.run(app, host=args.host, port=args.port, limit_concurrency=8 * args.waiting, log_level="warning")


if __name__ == "__main__":
    main()
