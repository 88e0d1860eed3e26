"""The report file of a verification: the whole document as JSON, or a CSV row for each finding and field.

It appears whole or not at all, so that whoever collects reports never reads half of one.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from readmodel_pipelines.cli.output import json_text
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.reconcile.summary import Summary

COLUMNS = ("read_model", "aggregate_id", "outcome", "reason", "field", "expected", "actual", "detail")
_SUFFIXES = (".json", ".csv")


def check_report_file(file: Path) -> None:
    """Find out before the work starts what would be in the way after it.

    Raises:
        UsageError: the suffix says no format, or there is no folder to write to.
    """
    if file.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{file} names no format of a report.", hint="Let its name end with .json or .csv.")
    if not file.parent.is_dir():
        raise UsageError(f"There is no folder {file.parent} for the report.", hint="Make it, or name another file.")
    if file.is_dir() or not os.access(file.parent, os.W_OK):
        raise UsageError(f"The report {file} cannot be written there.", hint="Name a file that you may write.")


def write_report(summary: Summary, file: Path) -> None:
    """Write it in the format that its suffix names.

    Raises:
        OSError: it cannot be written; what was there before is untouched.
    """
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        # A text that was no UTF-8 in the database comes as surrogates, which no file takes.
        with unfinished.open("w", encoding="utf-8", errors="backslashreplace", newline="") as out:
            if file.suffix.lower() == ".json":
                out.write(json_text(summary) + "\n")
            else:
                _write_csv(summary, out)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def _write_csv(summary: Summary, out: IO[str]) -> None:
    writer = csv.DictWriter(out, COLUMNS)
    writer.writeheader()
    for finding in summary.findings:
        writer.writerows(_rows(finding.as_json()))


def _rows(finding: dict[str, Any]) -> Iterator[dict[str, Any]]:
    aggregate_id = finding["aggregate_id"]
    row = {name: finding.get(name, "") for name in COLUMNS}
    row["aggregate_id"] = aggregate_id if isinstance(aggregate_id, str) else json.dumps(aggregate_id)
    for name, pair in finding["fields"].items():
        # As JSON: the text "1", the number 1 and a field that is not there must not look alike.
        values = {side: json.dumps(pair[side], ensure_ascii=False) for side in ("expected", "actual")}
        yield row | {"field": name} | values
    if not finding["fields"]:
        yield row
