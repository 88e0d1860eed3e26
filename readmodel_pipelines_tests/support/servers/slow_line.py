"""A line to a real server on which every byte takes its time, one way and the other, as over a long distance.

What is sent after one another arrives after one another: a stream is late, and not slow.
"""

import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from readmodel_pipelines_tests.support.servers.line import Line, folder_of_a_line

_PIECE = 1 << 18


class SlowLine(Line):
    """`seconds` is what a byte takes one way, and may be changed at any time."""

    def __init__(self, uri: str, folder: Path, seconds: float) -> None:
        super().__init__(uri, folder)
        self.seconds = seconds

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        with client, server:
            ways = [threading.Thread(target=self._carry, args=way) for way in ((client, server), (server, client))]
            for way in ways:
                way.daemon = True
                way.start()
            for way in ways:
                way.join()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        on_its_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        giving = threading.Thread(target=_give, args=(target, on_its_way), daemon=True)
        giving.start()
        piece = b"-"
        while piece:
            piece = b""
            with suppress(OSError):
                piece = source.recv(_PIECE)
            on_its_way.put((time.monotonic() + self.seconds, piece))
        giving.join()


def _give(target: socket.socket, on_its_way: "queue.SimpleQueue[tuple[float, bytes]]") -> None:
    with suppress(OSError):
        while True:
            arrives, piece = on_its_way.get()
            time.sleep(max(0.0, arrives - time.monotonic()))
            if not piece:
                # Whoever reads the other way comes to an end, too.
                target.shutdown(socket.SHUT_RDWR)
                return
            target.sendall(piece)


@contextmanager
def slow_line(uri: str, seconds: float) -> Iterator[SlowLine]:
    """A line to the server on a unix socket at this address; it ends with the block."""
    with folder_of_a_line() as folder, SlowLine(uri, folder, seconds).laid() as line:
        yield line
