"""Lines between the members of a replica set, which can be cut: others reach a member over its line alone.

A line knows who is at its other end, by the process whose socket it is; so a member is cut off from the others, in
both directions, while clients reach all of them. What is cut is silent, as a network is: nobody is told.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_BYTES = 1 << 16


class Line:
    """Listens at `port` and leads to `target`, both on the loopback."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self._pairs: list[tuple[int, socket.socket, socket.socket]] = []
        self._is_cut: Callable[[int], bool] = lambda _: False
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    @contextmanager
    def cut(self, concerns: Callable[[int], bool]) -> Iterator[None]:
        """Nothing gets through meanwhile of those whose own port it concerns; then their connections end."""
        self._is_cut = concerns
        try:
            yield
        finally:
            self._is_cut = lambda _: False
            with self._lock:
                silent = [pair for pair in self._pairs if concerns(pair[0])]
            for _, client, server in silent:
                _end(client)
                _end(server)

    def close(self) -> None:
        """Nobody gets in any more, and those that are in are out."""
        _end(self._listener)
        self._listener.close()
        for _, client, server in self._pairs:
            _end(client)
            _end(server)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, (_, port) = self._listener.accept()
                threading.Thread(target=self._serve, args=(client, port), daemon=True).start()

    def _serve(self, client: socket.socket, port: int) -> None:
        # One that comes while the line is cut is taken, and hears nothing.
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as server:
            pair = (port, client, server)
            with self._lock:
                self._pairs.append(pair)
            back = threading.Thread(target=self._pass_on, args=(server, client, port), daemon=True)
            back.start()
            self._pass_on(client, server, port)
            back.join()
            with self._lock:
                self._pairs.remove(pair)

    def _pass_on(self, here: socket.socket, there: socket.socket, port: int) -> None:
        with suppress(OSError):
            while part := here.recv(_BYTES):
                if not self._is_cut(port):
                    there.sendall(part)
        _end(here)
        _end(there)


def _end(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def is_port_of(process: int, port: int) -> bool:
    """Whether a connection from this port of the loopback is that process's."""
    sockets = set()
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with suppress(OSError):
            sockets.add(str(descriptor.readlink()))
    for line in Path(f"/proc/{process}/net/tcp").read_text().splitlines()[1:]:
        _, local, *rest = line.split()
        if int(local.partition(":")[2], 16) == port and f"socket:[{rest[7]}]" in sockets:
            return True
    return False
