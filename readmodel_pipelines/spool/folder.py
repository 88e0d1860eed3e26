"""The folder of one spool: this user's alone, gone with the block that made it; one that was killed goes with the next.

Whoever makes a folder holds the lock on a file in it for as long as the process lives: the kernel lets go of it however
that ends. A folder whose lock is free was left behind.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from readmodel_pipelines.errors import ReadModelError

_PREFIX = "readmodel-spool-"
_LOCK, _NEW = "in-use", "new"


class NoRoomToSpool(ReadModelError):
    """The folder of the spool cannot be written, or has too little room."""

    exit_code = 4


class SpoolLost(ReadModelError):
    """Somebody removed or changed the spool while it was read."""

    exit_code = 4


@contextmanager
def spool_folder(parent: Path, needed_bytes: int) -> Iterator[Path]:
    """A folder with room for so many bytes; what killed ones left beside it goes first.

    Raises:
        NoRoomToSpool: there is none, here or later in the block.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _sweep(parent)
        free = shutil.disk_usage(parent).free
        if free < needed_bytes:
            raise _no_room(parent, f"{_mib(free)} are free, and up to {_mib(needed_bytes)} are needed")
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    except OSError as error:
        raise _no_room(parent, str(error.strerror)) from None
    lock = os.open(folder / _NEW, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        _is_free(lock)
        # Nobody meets it before it is locked.
        (folder / _NEW).rename(folder / _LOCK)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def free_bytes(folder: Path) -> int:
    """The room where a folder is, or will be."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


@contextmanager
def room_or_refused(parent: Path) -> Iterator[None]:
    """What the system says in the block of writing comes out as `NoRoomToSpool`."""
    try:
        yield
    except OSError as error:
        raise _no_room(parent, str(error.strerror or error)) from None


def _sweep(parent: Path) -> None:
    for left in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            # Without its lock it is just being made, or just going.
            lock = os.open(left / _LOCK, os.O_RDWR)
            try:
                if _is_free(lock):
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


def _is_free(lock: int) -> bool:
    """Whether nobody else holds it; we do, then."""
    # Not everywhere; nor is the embedded server.
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _no_room(parent: Path, why: str) -> NoRoomToSpool:
    return NoRoomToSpool(
        f"The events cannot be spooled in {parent}: {why}.",
        hint="Name a folder with more room in READMODEL_SPOOL_DIR, or read in the order of the index: "
        "READMODEL_READ_ORDER=index.",
    )


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:,.0f} MiB"
