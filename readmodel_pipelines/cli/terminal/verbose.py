"""`--verbose`: what a command works with and what it asks of the server, on stderr. No document and no secret in it."""

from __future__ import annotations

import logging
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pymongo import monitoring

from readmodel_pipelines.cli.terminal.voice import voice
from readmodel_pipelines.doctor.configuration import settings_in_force
from readmodel_pipelines.settings import load_settings

_PACKAGE = "readmodel_pipelines"


@contextmanager
def explained(*, with_settings: bool) -> Iterator[None]:
    """Tell the settings before the block runs, what it connects to meanwhile, and commands and times after it."""
    started = time.perf_counter()
    versions = ", ".join(_version(name) for name in ("readmodel-pipelines", "pymongo", "pydantic"))
    voice.detail(f"{versions}, Python {platform.python_version()}")
    with _logs():
        for item in settings_in_force(load_settings()) if with_settings else ():
            voice.detail(f"{item.variable}={item.value}{'' if item.from_environment else '  (default)'}")
        _commands.clear()
        try:
            yield
        finally:
            for told in _commands.in_words():
                voice.detail(told)
            voice.detail(f"It took {time.perf_counter() - started:.2f} s.")


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} (not installed)"


@contextmanager
def _logs() -> Iterator[None]:
    """What the package logs, at any level, and warnings of Python's."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(_PACKAGE), logging.getLogger("py.warnings")]
    levels = [logger.level for logger in loggers]
    logging.captureWarnings(True)
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


class _Commands(monitoring.CommandListener):
    """Counts and times of the commands that this process sent; worker processes have their own."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)

    def clear(self) -> None:
        self._seconds.clear()

    def in_words(self) -> Iterator[str]:
        every = sorted(self._seconds.items(), key=lambda item: -sum(item[1]))
        if every:
            total = sum(len(times) for _, times in every)
            yield f"{total:,} commands of this process, {sum(sum(times) for _, times in every):.3f} s of the server:"
        for name, times in every:
            yield f"  {name:<16} {len(times):>7,}  {sum(times):>9.3f} s  slowest {max(times):.3f} s"

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Nothing: what counts is how it ends."""

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self._seconds[event.command_name].append(event.duration_micros / 1e6)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self._seconds[event.command_name].append(event.duration_micros / 1e6)
        code = event.failure.get("code", "")
        voice.detail(f"{event.command_name} failed after {event.duration_micros / 1e6:.3f} s: code {code}")


class _Servers(monitoring.ServerListener):
    """What it connects to."""

    def opened(self, event: monitoring.ServerOpeningEvent) -> None:
        """Nothing: it is not known yet what is there."""

    def closed(self, event: monitoring.ServerClosedEvent) -> None:
        """Nothing: it is the end of the connection."""

    def description_changed(self, event: monitoring.ServerDescriptionChangedEvent) -> None:
        host, port = event.server_address
        now: Any = event.new_description
        of = f" of replica set {now.replica_set_name}" if now.replica_set_name else ""
        took = f", answers in {now.round_trip_time * 1_000:.1f} ms" if now.round_trip_time is not None else ""
        voice.detail(f"MongoDB at {host if port is None else f'{host}:{port}'}: {now.server_type_name}{of}{took}")


_commands = _Commands()
# For every client that is made from now on; the driver has no way back.
monitoring.register(_commands)
monitoring.register(_Servers())
