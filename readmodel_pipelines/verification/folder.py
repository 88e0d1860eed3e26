"""The folder of reports that nobody named a file for: those of Dagster's runs."""

import re
import time
from collections import defaultdict
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.settings import Settings

_SUFFIXES = (".html", ".parquet")
_REPORT = re.compile(r"(verification-\d{8}T\d{6}-[\w-]+)\.(html|parquet)")
_UNFINISHED = re.compile(rf"\.{_REPORT.pattern}\.[0-9a-f]+\.tmp")
# Whoever began to write so long ago is dead: no verification takes a week.
_DEAD_AFTER_SECONDS = 7 * 24 * 60 * 60


def new_report_files(settings: Settings, about: str) -> list[Path]:
    """Where the next reports go, named after their moment and what they are about; too old ones are deleted.

    A run writes two files, a page and a table. The last runs' files are kept together, at least those of this one.

    Raises:
        UsageError: the folder cannot be made.
    """
    folder = folder_of_reports(settings)
    try:
        # What production holds is nobody else's business.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"The folder of reports {folder} cannot be made: {error.strerror}.", hint="Set READMODEL_REPORTS_DIR."
        ) from None
    _make_room(folder, max(1, settings.reports_kept // len(_SUFFIXES)))
    name = f"verification-{datetime.now(UTC):%Y%m%dT%H%M%S}-{about}"
    return [folder / f"{name}{suffix}" for suffix in _SUFFIXES]


def folder_of_reports(settings: Settings) -> Path:
    """Where the reports of Dagster's runs lie."""
    return (settings.reports_dir or settings.data_dir / "reports").expanduser().resolve()


def is_report(name: str) -> bool:
    """Whether a file of that name is one."""
    return _REPORT.fullmatch(name) is not None


def _make_room(folder: Path, most: int) -> None:
    """Delete what dead runs left, and the reports of the oldest runs, so that those of `most` are there with the next.

    People may keep files of their own there: what is not named as ours are is left.
    """
    runs: dict[str, list[Path]] = defaultdict(list)
    for file in folder.glob("*verification-*"):
        if match := _REPORT.fullmatch(file.name):
            runs[match[1]].append(file)
        # Another run may be faster.
        with suppress(OSError):
            if _UNFINISHED.fullmatch(file.name) and time.time() - file.stat().st_mtime > _DEAD_AFTER_SECONDS:
                file.unlink()
    for old in sorted(runs)[: max(0, len(runs) + 1 - most)]:
        for file in runs[old]:
            with suppress(OSError):
                file.unlink()
