"""A PostgreSQL of a test's own: an empty cluster in a folder, reached by a socket there, that ends with the test."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_BIN = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)), None]
PASSWORD = "s3cret/of:postgres"  # noqa: S105 - a test's own
USER = DATABASE = "dagster"


def why_not() -> str:
    """Why there can be none here; empty when there can."""
    if _program("initdb") is None or _program("pg_ctl") is None:
        return "no PostgreSQL here; install it, on Debian with `apt-get install postgresql`"
    try:
        import dagster_postgres  # noqa: F401
    except ImportError:
        return "no dagster-postgres here; install it with `pip install -e '.[postgres]'`"
    return ""


@contextmanager
def running() -> Iterator[str]:
    """The folder of its socket. Its only database is empty, and nobody is let in without the password."""
    with tempfile.TemporaryDirectory(prefix="readmodel-pg-") as name:
        folder = Path(name)
        data, password = folder / "data", folder / "password"
        password.write_text(PASSWORD)
        for path in (folder, password):
            shutil.chown(path, *_owner())
        _run("initdb", "-D", data, "-U", USER, "--pwfile", password, "--auth", "scram-sha-256", "--no-sync")
        options = f"-c listen_addresses='' -k {folder} -F"
        _run("pg_ctl", "start", "-w", "-D", data, "-l", folder / "log", "-o", options)
        try:
            _run("createdb", "-h", folder, "-U", USER, DATABASE, env={"PGPASSWORD": PASSWORD})
            yield str(folder)
        finally:
            _run("pg_ctl", "stop", "-m", "immediate", "-D", data)


def _run(program: str, *arguments: object, env: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        [str(_program(program)), *map(str, arguments)],
        env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
        # Where everybody may be, and no terminal's pipe that the server would keep open.
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if program != "pg_ctl" else subprocess.DEVNULL,
        text=True,
        check=False,
        timeout=240,
        **_unprivileged(),
    )
    assert done.returncode == 0, f"{program}: {done.stderr}"


def _unprivileged() -> dict[str, Any]:
    """PostgreSQL refuses to be run by root."""
    user, group = _owner()
    return {"user": user, "group": group, "extra_groups": []} if os.geteuid() == 0 else {}


def _owner() -> tuple[int, int]:
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names["nobody"]
    return entry.pw_uid, entry.pw_gid


def _program(name: str) -> str | None:
    found = [shutil.which(name, path=str(folder) if folder else None) for folder in reversed(_BIN)]
    return next((path for path in found if path), None)
