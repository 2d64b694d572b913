"""The examples of servers: answers under load, clear errors, a bounded queue, and files that Triton takes."""

import http.client
import io
import json
import re
import runpy
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import small_model

from ssd_zoo.data import read_image
from ssd_zoo.deploy import export, load
from ssd_zoo.prediction.results import result_rows

SERVER = Path(__file__).parents[1] / "examples" / "server"
PAGE = Path(__file__).parents[1] / "docs" / "cluster.md"
pytestmark = pytest.mark.usefixtures("one_thread")
# What torch and onnx warn of is not the server's.
quiet = pytest.mark.filterwarnings("ignore")


@contextmanager
def serving(model, **options):
    """Serves a model on a free port; gives the port."""
    uvicorn = pytest.importorskip("uvicorn", reason="NO SERVER: pip install ssd_zoo[server]")
    pytest.importorskip("fastapi", reason="NO SERVER: pip install ssd_zoo[server]")
    app = runpy.run_path(str(SERVER / "serve.py"))["make_app"](model, **options)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()


def ask(port, body, path="/detect", method="POST", connection=None):
    """Gives status, answer and headers."""
    connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body)
    response = connection.getresponse()
    return response.status, json.loads(response.read()), response.headers


def picture(width, height, kind="PNG", seed=0):
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(stream, format=kind)
    return stream.getvalue()


def expected(model, content):
    [found] = model([read_image(io.BytesIO(content))])
    rows = result_rows(found, model.categories, 0, "")
    return [{key: row[key] for key in ("category_id", "category", "bbox", "score")} for row in rows]


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    """A small model as an ONNX file with NMS inside."""
    pytest.importorskip("onnxruntime", reason="NO ONNX RUNTIME: pip install ssd_zoo[deploy]")
    file = tmp_path_factory.mktemp("exported") / "small.onnx"
    export(small_model(), file, format="onnx")
    return file


@quiet
@pytest.mark.slow
def test_four_clients_get_what_the_file_gives(small_file):
    local = load(small_file)
    pictures = [picture(20 + 7 * i, 200 - 9 * i, ("PNG", "JPEG")[i % 2], i) for i in range(20)]
    wanted = [expected(local, content) for content in pictures]
    assert sum(map(len, wanted)) > 20

    def client(first, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        answers = {}
        for i in [*range(first, 20), *range(first)]:
            answers[i] = ask(port, pictures[i], connection=connection)
        return answers

    with serving(load(small_file), batch_size=3) as port, ThreadPoolExecutor(4) as clients:
        for answers in clients.map(client, range(0, 20, 5), [port] * 4):
            for i, (status, answer, _) in answers.items():
                assert status == 200
                assert (answer["width"], answer["height"]) == (20 + 7 * i, 200 - 9 * i)
                assert answer["detections"] == wanted[i]


@quiet
def test_wrong_requests_are_told_what_is_wrong():
    model = small_model()
    with serving(model, max_bytes=100_000, max_pixels=10_000) as port:
        for body, path, method, status, reason in [
            (b"no image", "/detect", "POST", 400, "is not an image that can be read"),
            (picture(40, 40)[:900], "/detect", "POST", 400, "can't be read"),
            (b"", "/detect", "POST", 400, "no body"),
            (picture(101, 100, "JPEG"), "/detect", "POST", 400, "101 × 100 pixels, and 10000 are allowed"),
            (b"x" * 100_001, "/detect", "POST", 413, "more than 100000 bytes"),
            # Larger than what the connection buffers: the client sees the answer all the same.
            (b"x" * 20_000_000, "/detect", "POST", 413, "more than 100000 bytes"),
            (None, "/detect", "GET", 405, "Method Not Allowed"),
            (b"", "/elsewhere", "POST", 404, "Not Found"),
        ]:
            found, answer, _ = ask(port, body, path, method)
            assert (found, reason in answer["detail"]) == (status, True), answer
        content = picture(50, 60)
        assert ask(port, content)[:2] == (
            200,
            {"height": 60, "width": 50, "detections": expected(model, content)},
        )
        assert ask(port, None, "/health", "GET")[1] == {"requests": 0, "limit": 32}


@quiet
def test_a_body_that_does_not_come_ends():
    with serving(small_model(), body_seconds=0.1) as port, socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nbegin")
        assert client.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert ask(port, None, "/health", "GET")[1]["requests"] == 0


@contextmanager
def started(file, *options):
    """Starts the script as its page does; gives the port."""
    pytest.importorskip("uvicorn", reason="NO SERVER: pip install ssd_zoo[server]")
    pytest.importorskip("fastapi", reason="NO SERVER: pip install ssd_zoo[server]")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(SERVER / "serve.py"), str(file), "--port", str(port), *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline, "it does not start"
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=30)


@quiet
@pytest.mark.slow
def test_the_script_answers_four_clients_whatever_they_send(small_file):
    local = load(small_file)
    pictures = [picture(20 + 30 * i, 400 - 19 * i, ("PNG", "JPEG")[i % 2], i) for i in range(12)]
    wanted = [expected(local, content) for content in pictures]
    wrong = [(b"no image", 400), (b"", 400), (pictures[3][:500], 400), (b"x" * 1_000_001, 413)]

    def client(first, port):
        connection, refused = http.client.HTTPConnection("127.0.0.1", port, timeout=30), 0
        for i in [*range(first, 12), *range(first)]:
            while (given := ask(port, pictures[i], connection=connection))[0] == 503:
                refused += 1
                time.sleep(0.01)
            assert given[:2] == (200, {"width": 20 + 30 * i, "height": 400 - 19 * i, "detections": wanted[i]})
            body, status = wrong[i % 4]
            assert ask(port, body)[0] in (status, 503)
        return refused

    options = ["--waiting", "2", "--max-bytes", "1000000", "--batch-size", "2"]
    with started(small_file, *options) as port, ThreadPoolExecutor(4) as clients:
        assert sum(clients.map(client, range(0, 12, 3), [port] * 4)) > 0, "two of four fit"
        assert ask(port, None, "/health", "GET")[1] == {"requests": 0, "limit": 2}
        # Eight times as many connections are the most: the next is answered before its body comes.
        with ExitStack() as stack:
            for _ in range(8 * 2):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            last = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            last.sendall(b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
            assert last.recv(100).startswith(b"HTTP/1.1 503 ")
        while ask(port, pictures[0])[0] == 503:
            time.sleep(0.05)


@quiet
@pytest.mark.slow
def test_measuring_gives_the_table_of_the_page(small_file, tmp_path, monkeypatch, capsys):
    pytest.importorskip("uvicorn", reason="NO SERVER: pip install ssd_zoo[server]")
    pytest.importorskip("fastapi", reason="NO SERVER: pip install ssd_zoo[server]")
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(picture(64, 48, "JPEG", i))
    monkeypatch.setattr(sys, "argv", ["measure.py", str(small_file), str(tmp_path), "--seconds", "0.5"])
    runpy.run_path(str(SERVER / "measure.py"), run_name="__main__")
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert f"{head}\n" in PAGE.read_text()
    cells = [row.strip("| ").split(" | ") for row in rows]
    assert [row[0] for row in cells] == ["in the process, one at a time", "server, 1 client", "server, 4 clients"]
    for _, rate, p50, p99 in cells:
        assert float(rate) > 0
        assert 0 < float(p50) <= float(p99)


class Gate(torch.nn.Module):
    """A model that waits until it may go on, and fails at images of one pixel."""

    categories = ("background", "thing")

    def __init__(self):
        super().__init__()
        self.entered, self.open, self.sizes = threading.Event(), threading.Event(), []

    def forward(self, images):
        self.entered.set()
        self.open.wait(30)
        self.sizes.append(len(images))
        if any(image.shape[1:] == (1, 1) for image in images):
            raise RuntimeError("the model fails")
        none = {"boxes": torch.empty(0, 4), "scores": torch.empty(0), "labels": torch.empty(0, dtype=torch.int64)}
        return [none for _ in images]


@quiet
def test_the_queue_is_bounded_and_batches_form_by_themselves():
    model = Gate()
    with serving(model, waiting=5, batch_size=8) as port, ThreadPoolExecutor(5) as clients:
        answers = [clients.submit(ask, port, picture(20, 20))]
        assert model.entered.wait(30)
        answers += [clients.submit(ask, port, picture(20, 20)) for _ in range(4)]
        while ask(port, None, "/health", "GET")[1]["requests"] < 5:
            time.sleep(0.01)
        status, answer, headers = ask(port, picture(20, 20))
        assert (status, headers["Retry-After"]) == (503, "1")
        assert answer["detail"] == "5 requests are waiting already; try again."
        # The last of the five may still be decoded.
        time.sleep(0.2)
        model.open.set()
        assert [one.result()[0] for one in answers] == [200] * 5
        # The first came alone, and the others while it was in the model.
        assert (model.sizes[0], sum(model.sizes)) == (1, 5)
        assert len(model.sizes) < 5
        assert ask(port, picture(20, 20))[0] == 200


@quiet
def test_a_failure_of_the_model_is_one_answer():
    model = Gate()
    model.open.set()
    with serving(model) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/detect", picture(1, 1))
        assert connection.getresponse().status == 500
        assert ask(port, picture(20, 20))[0] == 200
        assert ask(port, None, "/health", "GET")[1]["requests"] == 0


@quiet
@pytest.mark.slow
@pytest.mark.parametrize("nms", ["inside", "outside"])
def test_triton_repository_describes_the_file(small_file, tmp_path, monkeypatch, capsys, nms):
    import onnxruntime

    file, repository = small_file, tmp_path / "repository"
    if nms == "outside":
        file = tmp_path / "small.onnx"
        export(small_model(), file, format="onnx", nms=nms)
    monkeypatch.setattr(sys, "argv", ["triton_repository.py", str(file), str(repository), "--waiting", "5"])
    runpy.run_path(str(SERVER / "triton_repository.py"), run_name="__main__")
    folder = repository / "small"
    assert capsys.readouterr().out == f"{folder}\n"
    assert (folder / "1" / "model.onnx").read_bytes() == file.read_bytes()
    config = (folder / "config.pbtxt").read_text()
    [most] = map(int, re.findall(r"max_batch_size: (\d+)", config))
    assert most == (8 if nms == "inside" else 0)
    assert ("max_queue_size: 5" in config) == (nms == "inside")
    # As Triton sees it: with batches the axis of images is left out, and reshape gives the true rest.
    described = {
        name: (kind, [int(side) for side in (reshape if has_reshape else dims).replace(",", " ").split()])
        for name, kind, dims, has_reshape, reshape in re.findall(
            r'name: "(\w+)"\s+data_type: TYPE_(\w+)\s+dims: \[([^\]]*)\](\s+reshape: \{ shape: \[([^\]]*)\] \})?',
            config,
        )
    }
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    outputs = session.get_outputs()
    tensors = [*session.get_inputs(), *outputs]
    assert list(described) == [tensor.name for tensor in tensors]
    pixels = np.random.default_rng(0).random((3, *described["images"][1][-3:]), np.float32)
    values = [pixels, *session.run(None, {"images": pixels})]
    kinds = {"float32": "FP32", "int64": "INT64", "bool": "BOOL"}
    for tensor, value in zip(tensors, values, strict=True):
        kind, shape = described[tensor.name]
        assert kind == kinds[str(value.dtype)]
        actual = value.shape[1:] if most else value.shape
        assert len(shape) == len(actual)
        assert all(side in (-1, real) for side, real in zip(shape, actual, strict=True))
    if nms == "inside":
        assert dict(zip([tensor.name for tensor in tensors], values, strict=True))["count"].min() > 0
    # A batch, as Triton forms it, gives what each image gives alone.
    for i in range(3):
        alone = session.run(None, {"images": pixels[i : i + 1]})
        for tensor, one, whole in zip(outputs, alone, values[1:], strict=True):
            of_image = whole if tensor.name == "default_boxes" else whole[i : i + 1]
            np.testing.assert_allclose(one, of_image, rtol=1e-5, atol=1e-6, err_msg=tensor.name)


@pytest.mark.slow
@quiet
def test_triton_reads_the_file(small_file):
    """The text is of Triton's own schema."""
    pytest.importorskip("tritonclient.grpc", reason="NO TRITONCLIENT: pip install tritonclient grpcio")
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    text = runpy.run_path(str(SERVER / "triton_repository.py"))["triton_config"](small_file)
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 64
    assert [list(output.dims) for output in config.output] == [[3, 4], [3], [3], [1], [1]]
