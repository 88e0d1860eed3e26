"""The place of an embedded server: the folder and the socket of one data folder, and their state.

Everything is in folders of this user alone. The lock that mongod holds on `mongod.lock` decides whether it lives,
because a process id may be stale or reused.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

from readmodel_pipelines.embedded.mongod_program import BRING_A_URI, SOCKET_NAME
from readmodel_pipelines.errors import EmbeddedServerError

if TYPE_CHECKING:
    from readmodel_pipelines.settings import Settings

# The smaller of the systems' limits for AF_UNIX paths (macOS 103, Linux 107). A comma or colon would break `--bind_ip`
# or the replica set's member name, hence the few characters.
_USABLE_SOCKET = re.compile(r"[A-Za-z0-9/._-]{1,103}")


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one data folder's server: `home` belongs to us alone, so we may set its mode."""

    home: Path
    socket: Path

    @classmethod
    def of(cls, settings: Settings) -> Place:
        """The place for the settings' data folder; creates nothing.

        Raises:
            EmbeddedServerError: this system has no embedded server, or no path fits for its socket.
        """
        if sys.platform == "win32":
            raise EmbeddedServerError(
                "There is no embedded MongoDB server on Windows.", hint=f"To go on, {BRING_A_URI}."
            )
        home = settings.data_dir.expanduser().resolve() / "mongod"
        near = home / SOCKET_NAME
        if _USABLE_SOCKET.fullmatch(str(near)):
            return cls(home, near)
        far = _far_socket(home, near)
        if _USABLE_SOCKET.fullmatch(str(far)):
            return cls(home, far)
        raise EmbeddedServerError(
            f"Neither the data folder ({home.parent}) nor the temporary folder ({far.parent.parent}) has a path that "
            "fits into the address of a Unix socket (103 characters; letters, digits and `/._-` only).",
            hint="Set READMODEL_DATA_DIR to a folder with a shorter path.",
        )

    @property
    def db(self) -> Path:
        """Its data files."""
        return self.home / "db"

    @property
    def log(self) -> Path:
        """Its log."""
        return self.home / "mongod.log"

    @property
    def pid_file(self) -> Path:
        """The file with its process id, locked while it lives."""
        return self.db / "mongod.lock"

    @property
    def near_socket(self) -> Path:
        """The socket itself, or a link to it if the path of `home` does not fit into a socket's address."""
        return self.home / SOCKET_NAME

    @property
    def uri(self) -> str:
        """Its connection string."""
        return f"mongodb://{quote_plus(str(self.socket))}/?directConnection=true"

    def make_private(self) -> None:
        """Create its folders, accessible only to this user.

        Raises:
            EmbeddedServerError: they cannot be created, or belong to another user.
        """
        try:
            self.home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in dict.fromkeys((self.home, self.db, self.socket.parent)):
                folder.mkdir(mode=0o700, exist_ok=True)
                _own(folder)
        except OSError as error:
            raise EmbeddedServerError(
                f"The folder of the embedded server cannot be created: {error}.",
                hint="Set READMODEL_DATA_DIR to a writable folder.",
            ) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock under which the state of the folder cannot change.

        Raises:
            EmbeddedServerError: the folder belongs to another user.
        """
        import fcntl

        _own(self.home)
        with (self.home / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                # Explicitly, because a process forked meanwhile holds a copy of the file, so that closing ours would
                # not release the lock.
                fcntl.flock(file, fcntl.LOCK_UN)

    def accepts(self) -> bool:
        """Whether a trusted server listens on the socket; the driver would wait for that answer."""
        try:
            folder = self.socket.parent.lstat()
            if folder.st_uid != os.geteuid() or self.socket.is_symlink():
                return False
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1)
                probe.connect(str(self.socket))
        except OSError:
            return False
        return True

    def holds_data(self) -> bool:
        """Whether a mongod has the data files open."""
        import fcntl

        try:
            with self.pid_file.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def pid(self) -> int | None:
        """The process id that the server reports."""
        try:
            return int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None


def _far_socket(home: Path, near: Path) -> Path:
    folder = f"readmodel-{os.geteuid()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}"
    # Processes with different TMPDIRs must find the same server, so the link of its starter decides. Its name must
    # match, because in a copied or moved data folder it leads to the server of the original.
    with contextlib.suppress(OSError):
        linked = near.readlink()
        if linked.parent.name == folder:
            return linked
    return Path(tempfile.gettempdir()).resolve() / folder / SOCKET_NAME


def _own(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise EmbeddedServerError(
            f"{folder} belongs to another user (user id {found.st_uid}) or is not a folder. The embedded server of "
            f"user id {os.geteuid()} does not use it.",
            hint="Run as the owner, or set READMODEL_DATA_DIR to a folder of your own.",
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
