"""A server on the loopback interface that holds an image, and answers badly where it is told to."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(image: bytes) -> Iterator[str]:
    """Serves an image at any path ending with `.png` and at `/random`; gives the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            found = path.endswith((".png", "random", "cut", "large"))
            self.send_response(200 if found else 503 if path == "/busy" else 404)
            length = {"/cut": len(image) + 100, "/large": 2**40}.get(path, len(image) if found else 0)
            self.send_header("Content-Type", "image/png" if found else "text/plain")
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if found:
                self.wfile.write(image)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
