"""The folder of one spool: private to this user, deleted with its block; that of a killed process is deleted by the
next.

The process that creates a folder locks a file in it while it lives; the kernel releases the lock however the process
ends. A folder without a lock is a leftover.
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
    """A folder with room for this many bytes; leftovers beside it are deleted first.

    Raises:
        NoRoomToSpool: there is too little room, here or later in the block.
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
        # No other process finds it before it is locked.
        (folder / _NEW).rename(folder / _LOCK)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def free_bytes(folder: Path) -> int:
    """The free bytes of the disk with this folder, which may not exist yet."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


@contextmanager
def room_or_refused(parent: Path) -> Iterator[None]:
    """Errors of writing in the block become `NoRoomToSpool`."""
    try:
        yield
    except OSError as error:
        raise _no_room(parent, str(error.strerror or error)) from None


def _sweep(parent: Path) -> None:
    for left in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            # A folder without a lock file is just being created or deleted.
            lock = os.open(left / _LOCK, os.O_RDWR)
            try:
                if _is_free(lock):
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


def _is_free(lock: int) -> bool:
    """Whether no other process locks it; then we do."""
    # Not available on every system; neither is the embedded server.
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _no_room(parent: Path, why: str) -> NoRoomToSpool:
    return NoRoomToSpool(
        f"The events cannot be spooled in {parent}: {why}.",
        hint="Set READMODEL_SPOOL_DIR to a folder with more room, or read in the order of the index: "
        "READMODEL_READ_ORDER=index.",
    )


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:,.0f} MiB"
