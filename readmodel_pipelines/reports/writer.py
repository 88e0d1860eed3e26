"""Writes report files during a verification: findings are written as they come, so that memory stays flat.

Findings become rows, one per different field. Every few thousand rows form a pandas data frame, which is appended to
each file. A file appears only when it is complete, so that no reader gets half of it. Only its owner may read it,
because it holds customers' data.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files as files_of
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.shares import SharedRoom
from readmodel_pipelines.wording import storable

if TYPE_CHECKING:
    import pandas

COLUMNS = (
    *("read_model", "aggregate_id", "outcome", "reason", "field", "expected", "actual", "detail"),
    *("first_seen", "age_seconds", "mend", "cause", "lost_version", "lost_type", "lost_at"),
)
FINDINGS_ON_PAGE = 5_000
_ROWS = 10_000
_BYTES = 8 * 1024 * 1024
"""Maximum number of rows held, of their characters, and of the bytes of findings on a page."""
# Characters that a spreadsheet takes for a formula, in either width, and harmless texts that begin with one.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_STORED = ("aggregate_id", "field", "expected", "actual", "detail")


def check_report_file(file: Path) -> None:
    """Check before the work that the report can be written.

    Raises:
        UsageError: the suffix is no known format, or the folder does not exist.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"The suffix of {file} is no format of a report.",
            hint=f"Give a name that ends with one of {', '.join(SUFFIXES)}.",
        )
    if not file.parent.is_dir():
        raise UsageError(f"There is no folder {file.parent} for the report.", hint="Create it, or give another file.")
    if file.is_dir() or not os.access(file.parent, os.W_OK):
        raise UsageError(f"The report {file} cannot be written.", hint="Give a file that you may write.")


class ReportWriter:
    """Takes the findings of a verification, in JSON form, and writes them to files, each in the format of its suffix.

    Without `finish`, closing it removes the files.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files: list[tuple[Path, Path, _Format]] = []
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        # Two spellings of one file would overwrite each other.
        places = {file.parent.resolve() / file.name: file for file in files}
        try:
            for file in places.values():
                unfinished = file.with_name(f".{file.name}.{secrets.token_hex(8)}.tmp")
                self._files.append((file, unfinished, _FORMATS[file.suffix.lower()](_new(unfinished))))
        except BaseException:
            self.close()
            raise

    def add(self, finding: Mapping[str, Any]) -> None:
        """Add a finding: `Finding.as_json` and, as `mend`, the command that repairs it."""
        for _, _, form in self._files:
            form.add(finding)
        if self._files:
            rows = list(_rows_of(finding))
            self._rows += rows
            self._bytes += sum(len(value) for row in rows for value in row.values() if isinstance(value, str))
        if len(self._rows) >= _ROWS or self._bytes >= _BYTES:
            self._append()

    def finish(self, summary: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> list[Path]:
        """Complete the files and move them to their places; `summary` and `history` are in JSON form.

        Raises:
            OSError: a file cannot be written; an earlier file of that name stays.
        """
        self._append()
        about = {name: value for name, value in summary.items() if name != "findings"}
        for _, _, form in self._files:
            form.finish(about, history)
            form.close()
        for file, unfinished, _ in self._files:
            unfinished.replace(file)
        return [file for file, _, _ in self._files]

    def close(self) -> None:
        """Remove unfinished files."""
        for _, unfinished, form in self._files:
            form.close()
            unfinished.unlink(missing_ok=True)

    def _append(self) -> None:
        rows, self._rows, self._bytes = self._rows, [], 0
        if rows:
            import pandas

            frame = pandas.DataFrame(rows, columns=list(COLUMNS)).astype({"age_seconds": "float64"})
            for _, _, form in self._files:
                form.append(frame)


def _new(file: Path) -> IO[bytes]:
    """Create a new file, not through a link, that only its owner may read."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(file, flags, 0o600), "wb")


class _Format:
    """One file being written, as text unless a format overrides it."""

    def __init__(self, file: IO[bytes]) -> None:
        # A text in the database that is not UTF-8 comes as surrogates, which no file accepts.
        self._out: Any = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")

    def add(self, finding: Mapping[str, Any]) -> None:
        """Add a finding."""

    def append(self, rows: pandas.DataFrame) -> None:
        """Write rows of findings that were added."""

    def finish(self, summary: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> None:
        """Write the part after all findings."""

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._out.close()


def _inert(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell) else cell


class _Csv(_Format):
    """A row for each field; values as JSON, so that the text "1", the number 1 and an absent field differ.

    A cell that a spreadsheet would take for a formula begins with an apostrophe.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._out.write(",".join(COLUMNS) + "\n")

    def append(self, rows: pandas.DataFrame) -> None:
        rows = rows.assign(**{name: rows[name].map(_inert) for name in _STORED})
        # Everything is quoted, because a lone carriage return would otherwise end the row for some readers.
        rows.to_csv(self._out, header=False, index=False, lineterminator="\n", quoting=csv.QUOTE_ALL)


class _Parquet(_Format):
    """The rows of the CSV file, for analysis; ages are numbers, all other values text."""

    def __init__(self, file: IO[bytes]) -> None:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]

        kinds = {"age_seconds": pyarrow.float64()}
        self._schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in COLUMNS])
        self._table = pyarrow.Table.from_pandas
        self._file = file
        self._out = pyarrow.parquet.ParquetWriter(file, self._schema)

    def append(self, rows: pandas.DataFrame) -> None:
        self._out.write_table(self._table(rows, schema=self._schema, preserve_index=False))

    def close(self) -> None:
        try:
            self._out.close()
        finally:
            self._file.close()


class _Json(_Format):
    """The `--json` document with every finding, one per line, for tools that read lines."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._out.write('{"findings": [')
        self._separator = "\n"

    def add(self, finding: Mapping[str, Any]) -> None:
        self._out.write(self._separator + json.dumps(finding))
        self._separator = ",\n"

    def finish(self, summary: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> None:
        self._out.write("\n], " + json.dumps(summary).removeprefix("{") + "\n")


class _Html(_Format):
    """One page that works offline and loads nothing: counts of all findings, and the first thousands of them."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._findings: SharedRoom[Mapping[str, Any]] = SharedRoom(FINDINGS_ON_PAGE, _BYTES)
        self._total = 0
        self._fields: Counter[tuple[str, str]] = Counter()

    def add(self, finding: Mapping[str, Any]) -> None:
        self._total += 1
        self._fields.update((finding["read_model"], field) for field in finding["fields"])
        kind = finding["read_model"], finding["outcome"] == "malformed"
        self._findings.add(kind, finding, len(json.dumps(finding)))

    def finish(self, summary: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> None:
        most_first = sorted(self._fields.items(), key=lambda item: (-item[1], item[0]))
        fields = [[model, field, number] for (model, field), number in most_first]
        data = {"summary": summary, "findings": self._findings.items(), "total": self._total, "fields": fields}
        text = json.dumps({**data, "history": history})
        # Escaped, so that hostile production data cannot be read as HTML or script.
        for character in "<>&":
            text = text.replace(character, f"\\u{ord(character):04x}")
        template = files_of("readmodel_pipelines.reports").joinpath("page.html").read_text("utf-8")
        self._out.write(template.replace("/*DATA*/", text))


_FORMATS: Mapping[str, type[_Format]] = {".json": _Json, ".csv": _Csv, ".parquet": _Parquet, ".html": _Html}
SUFFIXES = tuple(_FORMATS)


def _rows_of(finding: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    aggregate_id = finding["aggregate_id"]
    row = {name: finding.get(name) or "" for name in COLUMNS}
    row["aggregate_id"] = aggregate_id if isinstance(aggregate_id, str) else json.dumps(aggregate_id)
    row["age_seconds"] = finding.get("age_seconds")
    cause = finding.get("cause") or {}
    lost = next(iter(cause.get("lost", ())), None) or {}
    row |= {"cause": cause.get("kind", ""), "lost_version": str(lost.get("version", ""))}
    row |= {"lost_type": lost.get("event_type", ""), "lost_at": lost.get("occurred_at") or ""}
    # A finding without a field, such as a missing document, has its own row.
    for name, pair in finding["fields"].items() or [("", None)]:
        values = {side: json.dumps(pair[side], ensure_ascii=False) if pair else "" for side in ("expected", "actual")}
        told = row | {"field": name} | values
        yield {column: storable(value) if isinstance(value, str) else value for column, value in told.items()}
