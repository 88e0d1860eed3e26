"""The folder of a spool is gone when its block ends, and what a killed process left goes with the next one."""

import subprocess
import sys
from pathlib import Path

import pytest

from readmodel_pipelines.spool.folder import NoRoomToSpool, room_or_refused, spool_folder

_MAKE_AND_WAIT = """
import sys, pathlib
from readmodel_pipelines.spool.folder import spool_folder
with spool_folder(pathlib.Path(sys.argv[1]), 0) as folder:
    (folder / "events").write_bytes(b"x")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_this_user_s_alone_and_gone_with_its_block(tmp_path: Path) -> None:
    with spool_folder(tmp_path / "spool", 1) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "events").write_bytes(b"x")
    assert not list((tmp_path / "spool").iterdir())


def test_what_an_error_ended_is_gone_too(tmp_path: Path) -> None:
    with pytest.raises(KeyError), spool_folder(tmp_path, 1):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_what_was_killed_goes_with_the_next_and_what_is_at_work_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _MAKE_AND_WAIT, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        with spool_folder(tmp_path, 0):
            assert theirs.is_dir()
        other.kill()
        other.wait()
        assert theirs.is_dir()
        with spool_folder(tmp_path, 0) as ours:
            assert list(tmp_path.iterdir()) == [ours]


def test_without_room_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(NoRoomToSpool), spool_folder(tmp_path, 1 << 62):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_and_a_disk_that_is_full_are_refused_alike(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NoRoomToSpool), spool_folder(tmp_path / "file", 1):
        pass
    with pytest.raises(NoRoomToSpool), room_or_refused(tmp_path):
        raise OSError(28, "No space left on device")
