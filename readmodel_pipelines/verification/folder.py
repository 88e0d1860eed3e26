"""The folder of reports that nobody named a file for: those of Dagster's runs."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.settings import Settings

_SUFFIXES = (".html", ".parquet")


def new_report_files(settings: Settings, about: str) -> list[Path]:
    """Where the next reports go, named after their moment and what they are about; too old ones are deleted.

    Raises:
        UsageError: the folder cannot be made.
    """
    folder = settings.reports_dir or settings.data_dir / "reports"
    folder = folder.expanduser().resolve()
    try:
        # What production holds is nobody else's business.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"The folder of reports {folder} cannot be made: {error.strerror}.", hint="Set READMODEL_REPORTS_DIR."
        ) from None
    there = sorted(file for file in folder.glob("verification-*") if file.suffix in _SUFFIXES)
    for old in there[: max(0, len(there) + len(_SUFFIXES) - settings.reports_kept)]:
        # Another run may be faster.
        with suppress(OSError):
            old.unlink()
    name = f"verification-{datetime.now(UTC):%Y%m%dT%H%M%S}-{about}"
    return [folder / f"{name}{suffix}" for suffix in _SUFFIXES]
