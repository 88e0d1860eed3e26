"""`--verbose`: prints settings, server, commands and times to stderr, without documents and secrets."""

import logging
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from readmodel_pipelines.cli.terminal.voice import voice
from readmodel_pipelines.doctor.configuration import settings_in_force
from readmodel_pipelines.mongo.commands import overheard
from readmodel_pipelines.settings import load_settings

_PACKAGE = "readmodel_pipelines"


@contextmanager
def explained(*, with_settings: bool) -> Iterator[None]:
    """Print the settings before the block runs, the connection during it, and commands and times after it."""
    started = time.perf_counter()
    versions = ", ".join(_version(name) for name in ("readmodel-pipelines", "pymongo", "pydantic"))
    voice.detail(f"{versions}, Python {platform.python_version()}")
    with _logs():
        for item in settings_in_force(load_settings()) if with_settings else ():
            default = "  (default)" if item["from"] == "default" else ""
            voice.detail(f"{item['variable']}={item['value']}{default}")
        _commands.clear()
        try:
            yield
        finally:
            for told in _commands.in_words():
                voice.detail(told)
            voice.detail(f"The command took {time.perf_counter() - started:.2f} s.")


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} (not installed)"


@contextmanager
def _logs() -> Iterator[None]:
    """Print the log records of the package, at any level, and Python's warnings."""
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


_commands = overheard(voice.detail)
