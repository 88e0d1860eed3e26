"""A line to a real server that is cut at a chosen command: on the way there, or on the way back, when all is done.

It reads the driver's messages as far as it must to know which command goes by; what monitors a server is let through.
"""

import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from readmodel_pipelines_tests.support.servers.line import Line, folder_of_a_line

Way = Literal["request", "reply", "silence"]

_HEADER = struct.Struct("<iiii")
_OP_MSG = 2013
_MORE_TO_COME = 2
# What belongs to a connection and to no verb.
_OF_THE_DRIVER = frozenset({"hello", "ismaster", "isMaster", "ping", "endSessions", "saslStart", "saslContinue"})


@dataclass(frozen=True, slots=True)
class Cut:
    """Cut at the `number`-th of these commands, and at so many in a row; from 1.

    On the way there, on the way back, or so that the line stays and no reply comes.
    """

    command: str
    number: int
    way: Way
    times: int = 1


@dataclass(slots=True)
class _Message:
    command: str
    raw: bytes
    more: bool


class FaultyLine(Line):
    """`seen` counts the commands that went by; `cuts` those at which it was cut."""

    def __init__(self, uri: str, folder: Path) -> None:
        super().__init__(uri, folder)
        self.seen: Counter[str] = Counter()
        self.cuts = 0
        self._cut: Cut | None = None
        self._lock = threading.Lock()

    @contextmanager
    def cut(self, cut: Cut | None) -> Iterator[None]:
        """Count from now on, and cut there while the block runs."""
        with self._lock:
            self.seen, self.cuts, self._cut = Counter(), 0, cut
        try:
            yield
        finally:
            self._cut = None

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, suppress(OSError, EOFError):
            while True:
                request = _received(client)
                if self._is_cut(request.command, "request"):
                    return
                server.sendall(request.raw)
                while True:
                    reply = _received(server)
                    if self._is_cut(request.command, "reply"):
                        return
                    if self._is_cut(request.command, "silence"):
                        _received(client)
                        return
                    client.sendall(reply.raw)
                    if not reply.more:
                        break
                    # The server sends the next batch of its own accord.
                    self._is_cut(request.command, "request")

    def _is_cut(self, command: str, way: Way) -> bool:
        if command in _OF_THE_DRIVER:
            return False
        with self._lock:
            if way == "request":
                self.seen[command] += 1
            cut = self._cut
            if cut is None or cut.command != command or cut.way != way:
                return False
            is_cut = cut.number <= self.seen[command] < cut.number + cut.times
            self.cuts += is_cut
            return is_cut


def _received(end: socket.socket) -> _Message:
    header = _exactly(end, _HEADER.size)
    length, _, _, operation = _HEADER.unpack(header)
    body = _exactly(end, length - _HEADER.size)
    if operation != _OP_MSG:
        return _Message("hello", header + body, more=False)
    (flags,) = struct.unpack_from("<I", body)
    # Flags, kind of section, length of the document, type of its first field; then its name, which is the command.
    name = body[10 : body.index(0, 10)].decode()
    return _Message(name, header + body, more=bool(flags & _MORE_TO_COME))


def _exactly(end: socket.socket, number: int) -> bytes:
    parts: list[bytes] = []
    while number:
        part = end.recv(min(number, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        number -= len(part)
    return b"".join(parts)


@contextmanager
def faulty_line(uri: str) -> Iterator[FaultyLine]:
    """A line to the server on a unix socket at this address; it ends with the block."""
    with folder_of_a_line() as folder, FaultyLine(uri, folder).laid() as line:
        yield line
