"""The folder for reports without a given file: those of Dagster's runs."""

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
# A file this old belongs to a dead writer, because no verification takes a week.
_DEAD_AFTER_SECONDS = 7 * 24 * 60 * 60


def new_report_files(settings: Settings, about: str) -> list[Path]:
    """Paths for the next two reports, a page and a table, named after the time and the subject.

    Deletes the oldest runs' files, but never only one of a run's two files.

    Raises:
        UsageError: the folder cannot be created.
    """
    folder = folder_of_reports(settings)
    try:
        # Only its owner may read production data.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"The folder of reports {folder} cannot be created: {error.strerror}.",
            hint="Set READMODEL_REPORTS_DIR to another folder.",
        ) from None
    _make_room(folder, max(1, settings.reports_kept // len(_SUFFIXES)))
    name = f"verification-{datetime.now(UTC):%Y%m%dT%H%M%S}-{about}"
    return [folder / f"{name}{suffix}" for suffix in _SUFFIXES]


def folder_of_reports(settings: Settings) -> Path:
    """The folder of the reports of Dagster's runs."""
    return (settings.reports_dir or settings.data_dir / "reports").expanduser().resolve()


def is_report(name: str) -> bool:
    """Whether a file of that name is a report."""
    return _REPORT.fullmatch(name) is not None


def _make_room(folder: Path, most: int) -> None:
    """Delete the files of dead runs and the reports of the oldest runs, so that at most `most` remain with the next
    ones.

    Files with other names stay, because people may keep their own files there.
    """
    runs: dict[str, list[Path]] = defaultdict(list)
    for file in folder.glob("*verification-*"):
        if match := _REPORT.fullmatch(file.name):
            runs[match[1]].append(file)
        # Another run may have deleted it already.
        with suppress(OSError):
            if _UNFINISHED.fullmatch(file.name) and time.time() - file.stat().st_mtime > _DEAD_AFTER_SECONDS:
                file.unlink()
    for old in sorted(runs)[: max(0, len(runs) + 1 - most)]:
        for file in runs[old]:
            with suppress(OSError):
                file.unlink()
