"""A line to a real server: what goes over it can be cut, or be late."""

import socket
import tempfile
import threading
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote_plus, unquote, urlsplit

from readmodel_pipelines.embedded import mongod_program


class Line:
    """`uri` leads over it, to the server on a unix socket at an address."""

    def __init__(self, uri: str, folder: Path) -> None:
        self._server = unquote(urlsplit(uri).netloc.rpartition("@")[2])
        self._listener = socket.socket(socket.AF_UNIX)
        path = folder / mongod_program.SOCKET_NAME
        self._listener.bind(str(path))
        self._listener.listen(64)
        self.uri = f"mongodb://{quote_plus(str(path))}/?directConnection=true"

    @contextmanager
    def laid(self) -> Iterator[Self]:
        """It ends with the block; connections that are there end with their clients."""
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield self
        finally:
            self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    @abstractmethod
    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        """Carry what both say, and close both at the end."""


@contextmanager
def folder_of_a_line() -> Iterator[Path]:
    """For its socket."""
    with tempfile.TemporaryDirectory(prefix="readmodel-line-") as folder:
        yield Path(folder)
