"""A real mongod that is in no replica set, on a unix socket of its own."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from pymongo import MongoClient

from readmodel_pipelines.embedded import mongod_program


@contextmanager
def standalone_server() -> Iterator[str]:
    """Gives its connection string once it answers; it ends with the block."""
    configured = os.environ.get("READMODEL_MONGOD")
    binary = mongod_program.find_mongod(Path(configured) if configured else None)
    with tempfile.TemporaryDirectory(prefix="readmodel-alone-") as folder:
        db, socket = Path(folder) / "db", Path(folder) / mongod_program.SOCKET_NAME
        db.mkdir()
        command = mongod_program.command(binary, db=db, socket=socket)
        replica_set = command.index("--replSet")
        del command[replica_set : replica_set + 2]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                uri = f"mongodb://{quote_plus(str(socket))}/"
                client: MongoClient[Any] = MongoClient(uri, serverSelectionTimeoutMS=30_000)
                with client:
                    client.admin.command("ping")
                yield uri
            finally:
                server.kill()
