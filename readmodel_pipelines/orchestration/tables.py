"""Tables of runs, checks and the repair queue: outcomes, findings, causes, changes, dead letters.

A value longer than its column is shortened; the report has all of it. A column without values is left out.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from readmodel_pipelines.mongo.driver import Document
from readmodel_pipelines.reconcile.cause import MEANINGS, utc
from readmodel_pipelines.reconcile.extended_json import json_text
from readmodel_pipelines.reconcile.field_changes import FieldChanges
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.outages import Outage
from readmodel_pipelines.reconcile.outages import in_words as in_words_of_cause
from readmodel_pipelines.reconcile.outcome import ALARMS, WRITES, Outcome
from readmodel_pipelines.reconcile.shortened import how_long, in_text, part_of
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.wording import cut, cut_at_difference, one_line, span, storable

_WRITES = (*WRITES, "superseded", "failed")
_OUTCOMES = tuple(item.value for item in Outcome)
_OUTCOME = "outcome or write"
_ALWAYS = ("aggregate_id", "outcome")
_LONGEST_VALUE = 80
"""Characters. Two such values and the other columns fit on a page."""
_MEANINGS = {
    "same": "the document matches its events, or is rightly absent",
    "missing": "the document should exist and does not",
    "different": "some fields do not match the events",
    "unexpected": "the document exists and should not",
    "orphan": "the document exists and has no event",
    "lagging": "it lacks only the events of the last moments",
    "malformed": "the stream is malformed; the document is left unchanged",
    "undecided": "no document; only its events decide whether one should exist",
    "inserted": "missing documents written",
    "replaced": "documents whose different fields were written",
    "deleted": "unwanted documents deleted",
    "superseded": "writes skipped because the document changed meanwhile; compared again",
    "failed": "aggregates whose write failed",
}
_OF_FINDINGS = {
    "aggregate_id": "Aggregate whose document and events were compared",
    "outcome": "missing, different, unexpected, orphan or malformed",
    "reason": "Reason why the stream is malformed, or why the aggregate could not be rebuilt",
    "field": "Field that differs; each has its own line",
    "expected": "Its value according to the events, as Extended JSON",
    "actual": "Its value in the stored document, as Extended JSON",
    "why": "Its cause, as far as the events show it, and the first lost update",
    "age": "Time of the first verification that found it, with the aggregate unchanged since",
}
_OF_CHANGES = {
    "field": "Field that a rebuild would change",
    "documents": "Stored documents that would change",
    "by_projection": "Documents whose value differs from the one that the projection's `earlier` makes",
    "example": "One of these aggregates",
    "before": "Stored value, as Extended JSON",
    "after": "New value, as Extended JSON",
}
_OF_CAUSES = {
    "cause": "Cause of the wrong documents",
    "event_type": "Type of the first event whose update was lost",
    "count": "Aggregates",
    "first": "Time of the first of these events",
    "last": "Time of the last of these events",
    "examples": "Some of the aggregates",
    "meaning": None,
}
_OF_NUMBERS = {"name": "Name of the number; zeros are left out", "value": "The number"}
_MOST_CAUSES = 100
_LONGEST_TEXT = 500
_OF_DEAD_LETTERS = {
    "task": "`_id` of the task, for `readmodel repair-queue requeue --id TASK`",
    "aggregate_type": "Aggregate type as its producer wrote it",
    "aggregate_id": "Aggregate whose read models are not repaired",
    "reason": "Reason, for `readmodel repair-queue requeue --reason REASON`",
    "detail": "Error of the last attempt",
    "error": "Error of the application when its update failed",
    "attempts": "Failed attempts",
    "since": "Time when it was added",
}


def table_of_outcomes(summary: Summary) -> dg.TableMetadataValue:
    """A line for each outcome and write, with the number of aggregates of each read model."""
    names = list(summary.read_models)
    written = () if summary.verb == "verify" else _WRITES
    always = {item.value for item in (Outcome.SAME, *ALARMS)} | set(written)
    lines = [
        {_OUTCOME: name, **{model: getattr(summary.read_models[model], name) for model in names}, "meaning": meaning}
        for name, meaning in _MEANINGS.items()
        if name in (*_OUTCOMES, *written)
    ]
    said = {_OUTCOME: "Outcome of the comparison, or write"}
    said |= {model: f"Aggregates of {model}" for model in names}
    shown = (line for line in lines if line[_OUTCOME] in always or any(line[model] for model in names))
    return table(shown, said | {"meaning": None}, numbers=names)


def table(
    rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str | None], numbers: Collection[str] = ()
) -> dg.TableMetadataValue:
    """A table of these columns of the rows, with their descriptions; those in `numbers` hold integers."""
    made = [
        dg.TableColumn(name, "int" if name in numbers else "string", description=said) for name, said in columns.items()
    ]
    shown = ({name: row[name] for name in columns} for row in rows)
    told = [
        {name: storable(value) if isinstance(value, str) else value for name, value in row.items()} for row in shown
    ]
    return dg.MetadataValue.table([dg.TableRecord(row) for row in told], dg.TableSchema(made))


def table_of(findings: Iterable[Finding]) -> dg.TableMetadataValue:
    """Findings of a read model as a table, one line per field. A column without values is left out."""
    rows = [row for finding in findings for row in _rows(finding)]
    filled = [name for name in _OF_FINDINGS if name in _ALWAYS or any(row[name] for row in rows)]
    return table(rows, {name: _OF_FINDINGS[name] for name in filled})


def table_of_changes(changes: FieldChanges) -> dg.TableMetadataValue | None:
    """The changes that a rebuild would make, one line per field; None if there are none."""
    by_projection = changes.projected.fields if changes.projected else {}
    fields = dict.fromkeys([*(name for name, _ in changes.stored.largest_first()), *by_projection])
    columns = {name: said for name, said in _OF_CHANGES.items() if name != "by_projection" or changes.projected}
    rows = []
    for name in fields:
        examples = changes.stored.examples.get(name) or (changes.projected or changes.stored).examples[name]
        told = examples[0].as_json()
        before, after = cut_at_difference(in_text(told["before"]), in_text(told["after"]), _LONGEST_VALUE)
        row = {
            "field": one_line(name),
            "documents": changes.stored.fields.get(name, 0),
            "by_projection": by_projection.get(name, 0),
            "example": one_line(str(told["aggregate_id"])),
            "before": one_line(before),
            "after": one_line(after),
        }
        rows.append(row)
    return table(rows, columns, numbers=["documents", "by_projection"]) if rows else None


def table_of_numbers(said: Mapping[str, str]) -> dg.TableMetadataValue:
    """Numbers and words by name, one line each."""
    return table(({"name": name, "value": one_line(value)} for name, value in said.items()), _OF_NUMBERS)


def table_of_causes(outages: Sequence[Outage], *, narrow: bool = False) -> dg.TableMetadataValue:
    """The causes shared by findings, the largest group first; `narrow` leaves out the wide columns."""
    rows = (
        {
            "cause": item.kind.value,
            "event_type": one_line(item.event_type or ""),
            "count": item.count,
            "first": utc(item.first) or "",
            "last": utc(item.last) or "",
            "examples": one_line(cut(", ".join(map(part_of, item.examples)), _LONGEST_VALUE)),
            "meaning": MEANINGS[item.kind],
        }
        for item in outages[:_MOST_CAUSES]
    )
    columns = {name: said for name, said in _OF_CAUSES.items() if not narrow or name not in ("examples", "meaning")}
    return table(rows, columns, numbers=["count"])


def _rows(finding: Finding) -> Iterator[dict[str, str]]:
    shown = finding.as_json()
    aggregate_id = shown["aggregate_id"]
    about = {
        "aggregate_id": one_line(
            aggregate_id if isinstance(aggregate_id, str) else cut(part_of(aggregate_id), _LONGEST_VALUE)
        ),
        "outcome": finding.outcome.value,
        "reason": one_line(": ".join(part for part in (shown["reason"], finding.detail) if part)),
    }
    about["why"] = "" if finding.cause is None else one_line(in_words_of_cause(finding.cause))
    about["age"] = "" if finding.age_seconds is None else span(finding.age_seconds)
    # An aggregate without a different field, for example one without a document, has its own line.
    for field, pair in shown["fields"].items() or [("", None)]:
        texts = ("", "") if pair is None else (part_of(pair["expected"]), part_of(pair["actual"]))
        expected, actual = cut_at_difference(*texts, _LONGEST_VALUE)
        if pair is not None:
            expected, actual = expected + how_long(pair["expected"]), actual + how_long(pair["actual"])
        yield {**about, "field": one_line(field), "expected": one_line(expected), "actual": one_line(actual)}


def table_of_dead_letters(tasks: Iterable[Document]) -> dg.TableMetadataValue:
    """Tasks as a table, whatever values their producers stored."""
    return table(map(_dead_letter, tasks), _OF_DEAD_LETTERS, numbers=["attempts"])


def _dead_letter(task: Document) -> dict[str, Any]:
    attempts, retries = task.get("attempts"), task.get("retry_count")
    last = attempts[-1] if isinstance(attempts, list) and attempts and isinstance(attempts[-1], dict) else {}
    return {
        "task": _stored(task.get("_id")),
        "aggregate_type": _stored(task.get("aggregate_type")),
        "aggregate_id": _stored(task.get("aggregate_id")),
        "reason": _stored(task.get("reason")),
        "detail": _stored(last.get("detail")),
        "error": _stored(task.get("error")),
        "attempts": retries if isinstance(retries, int) else 0,
        "since": _stored(task.get("created_at")),
    }


def _stored(value: Any) -> str:
    """A stored value as text."""
    return "" if value is None else one_line(json_text(value)[:_LONGEST_TEXT])
