"""A camera on the loopback interface: a server of RTSP 1.0 (RFC 2326) that sends H.264 on its own connection."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import av
import numpy as np

SDP = "\r\n".join(
    [
        "v=0",
        "o=- 0 0 IN IP4 127.0.0.1",
        "s=camera",
        "c=IN IP4 127.0.0.1",
        "t=0 0",
        "m=video 0 RTP/AVP 96",
        "a=rtpmap:96 H264/90000",
        "a=fmtp:96 packetization-mode=1",
        "a=control:track1",
        "",
    ]
)


@contextmanager
def camera(frames: Sequence[np.ndarray], fps: int = 10) -> Iterator[str]:
    """Send frames, RGB of shape (H, W, 3), to each client at their pace, and hang up; gives the address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer_all() -> None:
        with ThreadPoolExecutor() as clients:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                clients.submit(_answer, client, frames, fps)

    thread = threading.Thread(target=answer_all)
    thread.start()
    try:
        yield f"rtsp://127.0.0.1:{listener.getsockname()[1]}/door"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _answer(client: socket.socket, frames: Sequence[np.ndarray], fps: int) -> None:
    with client, client.makefile("rb") as requests:
        while request := requests.readline().split():
            number = b""
            while line := requests.readline().strip():
                if line.lower().startswith(b"cseq:"):
                    number = line
            header, text = b"", b""
            if request[0] == b"OPTIONS":
                header = b"Public: DESCRIBE, SETUP, PLAY\r\n"
            elif request[0] == b"DESCRIBE":
                text = SDP.encode()
                header = b"Content-Type: application/sdp\r\nContent-Length: %d\r\n" % len(text)
            elif request[0] == b"SETUP":
                header = b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
            client.sendall(b"RTSP/1.0 200 OK\r\n" + number + b"\r\n" + header + b"\r\n" + text)
            if request[0] == b"PLAY":
                for packet in _packets(frames, fps):
                    client.sendall(b"$\x00" + len(packet).to_bytes(2, "big") + packet)
                return


def _packets(frames: Sequence[np.ndarray], fps: int) -> Iterator[bytes]:
    """Give the RTP packets that FFmpeg makes, which it sends by UDP alone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as received:
        received.bind(("127.0.0.1", 0))
        address = f"rtp://127.0.0.1:{received.getsockname()[1]}?rtcpport=9"
        with av.open(address, "w", format="rtp") as container:
            stream = container.add_stream("libx264", rate=fps, options={"tune": "zerolatency", "g": "5"})
            stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
            received.setblocking(False)
            for frame in [*frames, None]:
                picture = None if frame is None else av.VideoFrame.from_ndarray(frame)
                for packet in stream.encode(picture):
                    container.mux(packet)
                time.sleep(1 / fps)
                while True:
                    try:
                        yield received.recv(65536)
                    except BlockingIOError:
                        break
