"""The place of an embedded server: the folder and the socket of one data folder, and what can be seen there.

Everything lies in folders of ours alone. The lock that mongod holds on `mongod.lock` decides whether it lives: a
process id alone may be stale or reused.
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
    """Where the server of one data folder keeps its things: `home` is ours alone, so we may set its mode."""

    home: Path
    socket: Path

    @classmethod
    def of(cls, settings: Settings) -> Place:
        """That of the settings' data folder; makes nothing.

        Raises:
            EmbeddedServerError: there is no embedded server on this system, or no path for its socket.
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
        """What it says."""
        return self.home / "mongod.log"

    @property
    def pid_file(self) -> Path:
        """Locked while it lives, with its process id."""
        return self.db / "mongod.lock"

    @property
    def near_socket(self) -> Path:
        """The socket itself, or a link to it when the path of `home` does not fit into a socket's address."""
        return self.home / SOCKET_NAME

    @property
    def uri(self) -> str:
        """How the driver connects to it."""
        return f"mongodb://{quote_plus(str(self.socket))}/?directConnection=true"

    def make_private(self) -> None:
        """Make its folders, for nobody else.

        Raises:
            EmbeddedServerError: they cannot be made, or belong to somebody else.
        """
        try:
            self.home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in dict.fromkeys((self.home, self.db, self.socket.parent)):
                folder.mkdir(mode=0o700, exist_ok=True)
                _own(folder)
        except OSError as error:
            raise EmbeddedServerError(
                f"The folder of the embedded server cannot be made: {error}.",
                hint="Set READMODEL_DATA_DIR to a folder in which you may write.",
            ) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Under this lock whoever comes may trust what it sees.

        Raises:
            EmbeddedServerError: the folder belongs to somebody else.
        """
        import fcntl

        _own(self.home)
        with (self.home / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                # Said aloud because a process forked meanwhile holds a copy of the file, and closing ours would not do.
                fcntl.flock(file, fcntl.LOCK_UN)

    def accepts(self) -> bool:
        """Whether something listens on the socket and may be believed; the driver would wait for that answer."""
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
        """The process that the server says it is."""
        try:
            return int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None


def _far_socket(home: Path, near: Path) -> Path:
    folder = f"readmodel-{os.geteuid()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}"
    # Two processes may have different TMPDIRs and shall meet all the same, so the link that the starter left decides.
    # Its name must match: in a copied or moved data folder it leads to the server of the original.
    with contextlib.suppress(OSError):
        linked = near.readlink()
        if linked.parent.name == folder:
            return linked
    return Path(tempfile.gettempdir()).resolve() / folder / SOCKET_NAME


def _own(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise EmbeddedServerError(
            f"{folder} belongs to somebody else (user id {found.st_uid}) or is not a folder; the embedded server of "
            f"user id {os.geteuid()} does not use it.",
            hint="Run as the owner, or set READMODEL_DATA_DIR to a folder of your own.",
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
