"""An embedded server of the tests' own: it ends, and its data goes, with the block that asked for it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from readmodel_pipelines.embedded import server as embedded
from readmodel_pipelines.settings import Settings

_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder with a random name is made in it
_ROOM = 4 << 30


@contextmanager
def server_folder() -> Iterator[Path]:
    """A folder for the data of a server, whose path leaves room for a socket's: pytest's own would be too long.

    It lies in memory where there is plenty, for then no write waits for a disk, which is a fifth of what a server
    costs these tests.
    """
    roomy = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM
    with tempfile.TemporaryDirectory(prefix="readmodel-tests-", dir=_MEMORY if roomy else None) as folder:
        yield Path(folder)


@contextmanager
def own_server(*, started: bool = True, **changed: Any) -> Iterator[Settings]:
    """Settings of a single-node replica set that ends with the block, however this process ends."""
    with server_folder() as folder:
        settings = Settings(data_dir=folder, mongod=os.environ.get("READMODEL_MONGOD") or None, **changed)
        try:
            if started:
                embedded.ensure_running(settings, die_with_parent=True)
            yield settings
        finally:
            embedded.stop(settings)
