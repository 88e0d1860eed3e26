"""What is said of runs and of the repair queue: numbers to plot, tables of outcomes, findings, dead letters, words."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import dagster as dg

from readmodel_pipelines.bookkeeping.queue_stats import QueueStats
from readmodel_pipelines.mongo.driver import Document
from readmodel_pipelines.orchestration.config import SHOWN
from readmodel_pipelines.orchestration.failure import failure
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.extended_json import json_text
from readmodel_pipelines.reconcile.finding import Finding, kind_of
from readmodel_pipelines.reconcile.outcome import ALARMS, WRITES, Counts, Outcome, Why
from readmodel_pipelines.reconcile.shortened import how_long, part_of
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.repair.summary import RepairSummary
from readmodel_pipelines.shares import shared
from readmodel_pipelines.wording import cut, cut_where_they_part, numbers, one_line, span, storable

_ALWAYS = ("aggregate_id", "outcome")
_LONGEST_VALUE = 200
_WRITES = (*WRITES, "superseded", "failed")
_OUTCOMES = tuple(item.value for item in Outcome)
_OUTCOME = "outcome or write"
_MEANINGS = {
    "same": "the document is what the events say, or rightly absent",
    "missing": "there ought to be a document and is none",
    "different": "some fields are not what the events say",
    "unexpected": "there is a document and ought to be none",
    "orphan": "there is a document and no event at all",
    "lagging": "it lacks only the events of the last moment",
    "malformed": "the events cannot be trusted; the document is left as it is",
    "undecided": "no document; only its events tell whether there ought to be one",
    "inserted": "documents written that were missing",
    "replaced": "documents of which the fields that differed were written",
    "deleted": "documents deleted that nobody wants",
    "superseded": "writes that another writer was faster than; compared again",
    "failed": "aggregates that need a write and did not get it",
}
_OF_FINDINGS = {
    "aggregate_id": "Aggregate whose document and events were compared",
    "outcome": "missing, different, unexpected, orphan or malformed",
    "reason": "Why a stream is malformed, or why the aggregate could not be done",
    "field": "Field that differs; the finding has a line for each",
    "expected": "Its value according to the events, as Extended JSON",
    "actual": "Its value in the stored document, as Extended JSON",
    "age": "Since when verifications find it, its aggregate unchanged",
}
_LONGEST_TEXT = 500
_OF_DEAD_LETTERS = {
    "task": "`_id` of the task, for `readmodel repair-queue requeue --id`",
    "aggregate_type": "Aggregate type as its producer wrote it",
    "aggregate_id": "Aggregate whose read models are not repaired",
    "reason": "Why it was parked, for `readmodel repair-queue requeue --reason`",
    "detail": "What the last attempt said",
    "attempts": "Failed attempts",
    "since": "When it was added",
}


def metadata_of(
    summary: Summary, read_model: str, *, max_findings: int, documents: int | None = None
) -> dict[str, Any]:
    """What is recorded on a read model's asset; counts and times are numbers, so that Dagster plots them.

    `documents` is the size of the read model after a full rebuild.
    """
    counts = summary.read_models[read_model]
    said: dict[str, Any] = {"verb": summary.verb, "outcomes": _outcomes_of(summary)}
    said |= {**counts.as_dict(), "discrepancies": counts.discrepancies}
    if summary.verb == "verify":
        said = {name: value for name, value in said.items() if name not in _WRITES}
    said["seconds"] = round(summary.seconds, 3)
    said["events"] = summary.events
    said["events_per_second"] = round(summary.events / max(summary.seconds, 1e-9), 1)
    if documents is not None:
        said["dagster/row_count"] = documents
    said |= {name: value for name, value in summary.about.items() if name not in ("rebuilds", "reports", "started_at")}
    said |= summary.rebuild_of(read_model).as_json()
    if read_model in summary.closed:
        said["closed"] = summary.closed[read_model]
    if read_model in summary.elsewhere:
        said["open_elsewhere"] = summary.elsewhere[read_model].total()
    said |= {f"differs/{name}": number for name, number in sorted(summary.differing[read_model].items())}
    if read_model in summary.oldest_seconds:
        said["oldest_seconds"] = summary.oldest_seconds[read_model]
    for place in summary.scope.reports or ():
        said[f"report{PurePath(place).suffix}"] = dg.MetadataValue.path(place)
    findings = shared((item for item in summary.findings if item.read_model == read_model), max_findings, kind_of)
    if findings:
        said["findings"] = table_of(findings)
    return said


def metadata_of_one(summary: Summary, read_model: str, aggregate_id: str) -> dict[str, Any]:
    """What is recorded of one aggregate: texts, for its numbers would be drawn into the plots of whole read models."""
    counts = summary.read_models[read_model]
    said: dict[str, Any] = {
        "verb": summary.verb,
        "aggregate_id": aggregate_id,
        "outcome": _names(counts, _OUTCOMES),
        "written" if summary.verb == "rebuild" else "would_write": _names(counts, _WRITES) or "nothing",
        "events_read": f"{summary.events:,}",
    }
    if summary.findings:
        said["findings"] = table_of(summary.findings)
    return said


def _outcomes_of(summary: Summary) -> dg.TableMetadataValue:
    """A line for each outcome and write, with the number of aggregates of each read model."""
    names = list(summary.read_models)
    written = () if summary.verb == "verify" else _WRITES
    always = {item.value for item in (Outcome.SAME, *ALARMS)} | set(written)
    lines = [
        {_OUTCOME: name, **{model: getattr(summary.read_models[model], name) for model in names}, "meaning": meaning}
        for name, meaning in _MEANINGS.items()
        if name in (*_OUTCOMES, *written)
    ]
    said = {_OUTCOME: "What was found of an aggregate, or done about it"}
    said |= {model: f"Aggregates of {model}" for model in names}
    shown = (line for line in lines if line[_OUTCOME] in always or any(line[model] for model in names))
    return table(shown, said | {"meaning": None}, numbers=names)


def table(
    rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str | None], numbers: Collection[str] = ()
) -> dg.TableMetadataValue:
    """A table of these rows; columns with what they say, those in `numbers` hold whole ones."""
    made = [
        dg.TableColumn(name, "int" if name in numbers else "string", description=said) for name, said in columns.items()
    ]
    told = [{name: storable(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows]
    return dg.MetadataValue.table([dg.TableRecord(row) for row in told], dg.TableSchema(made))


def in_words(summary: Summary) -> str:
    """The outcome as a sentence for each read model."""
    writes = {"verify": "", "dry_run": "; a rebuild would write: {}", "rebuild": "; written: {}"}[summary.verb]
    return " ".join(
        f"{name}: {counts.checked:,} aggregates compared: {_numbers(counts, _OUTCOMES) or 'nothing there'}"
        f"{writes.format(_numbers(counts, _WRITES) or 'nothing')}."
        for name, counts in summary.read_models.items()
    )


def raise_unless_ok(summary: Summary, metadata: Mapping[str, Mapping[str, Any]]) -> None:
    """A run that found or left something wrong is no success: fail it with a sentence, and `metadata` by read model."""
    if summary.ok:
        return
    shown = {
        f"{read_model}/{name}" if len(metadata) > 1 else name: value
        for read_model, said in metadata.items()
        for name, value in said.items()
    }
    raise failure(f"{' '.join(_wrong(summary))} {' '.join(_what_to_do(summary))}", shown)


def _wrong(summary: Summary) -> Iterator[str]:
    if summary.rebuild.state is RebuildState.REFUSED:
        yield from map(one_line, summary.warnings)
    for name, counts in summary.read_models.items():
        verify = summary.verb == "verify"
        bad = counts.discrepancies if verify else counts.malformed + counts.failed
        kinds = _numbers(counts, [name for name in _OUTCOMES if name != "same"] if verify else ["malformed", "failed"])
        number = f"{bad:,} of {counts.checked:,} aggregates"
        told = {
            "verify": f"{number} are not as their events say: {kinds}.",
            "rebuild": f"{number} could not be rebuilt: {kinds}; the others are as their events say.",
            "dry_run": f"a rebuild could not do {number}: {kinds}.",
        }
        if bad:
            yield f"{name}: {told[summary.verb]}"


def _what_to_do(summary: Summary) -> Iterator[str]:
    every = summary.read_models.values()
    if summary.verb == "verify" and any(counts.discrepancies > counts.malformed for counts in every):
        yield "Materialize the asset or run rebuild_read_models to mend them."
    if any(counts.malformed for counts in every):
        yield "The documents of malformed streams are left as they are until somebody mends the events."
    if any(finding.reason == Why.DELETIONS_REFUSED for finding in summary.findings):
        yield "So many deletions were refused: verify, and set allow_deletions if the events are complete."
    elif any(counts.failed for counts in every):
        yield "Run it again; the reasons tell what stands against it otherwise."
    yield "The table of findings has the aggregates with their reasons."


def _names(counts: Counts, names: Iterable[str]) -> str:
    """For one aggregate, of which there is more than one document at times."""
    there = [(name, number) for name in names if (number := getattr(counts, name))]
    return ", ".join(name if number == 1 else f"{number} {name}" for name, number in there)


def _numbers(counts: Counts, names: Iterable[str]) -> str:
    return numbers({name: getattr(counts, name) for name in names})


def table_of(findings: Iterable[Finding]) -> dg.TableMetadataValue:
    """Findings of a read model as a table, a line for each field. A column that no line fills is left out."""
    rows = [row for finding in findings for row in _rows(finding)]
    filled = [name for name in _OF_FINDINGS if name in _ALWAYS or any(row[name] for row in rows)]
    shown = ({name: row[name] for name in filled} for row in rows)
    return table(shown, {name: _OF_FINDINGS[name] for name in filled})


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
    about["age"] = "" if finding.age_seconds is None else span(finding.age_seconds)
    # An aggregate that differs in no field, because it has no document for example, has a line all the same.
    for field, pair in shown["fields"].items() or [("", None)]:
        texts = ("", "") if pair is None else (part_of(pair["expected"]), part_of(pair["actual"]))
        expected, actual = cut_where_they_part(*texts, _LONGEST_VALUE)
        if pair is not None:
            expected, actual = expected + how_long(pair["expected"]), actual + how_long(pair["actual"])
        yield {**about, "field": one_line(field), "expected": one_line(expected), "actual": one_line(actual)}


def numbers_of(stats: QueueStats) -> dict[str, int | float]:
    """The queue in numbers, for Dagster to plot."""
    return {
        "pending": stats.pending,
        "in_work": stats.processing,
        "completed": stats.completed,
        "dead_letters": stats.failed,
        "due": stats.due,
        "oldest_pending_seconds": round(stats.oldest_pending_seconds, 1),
        "repairs_per_minute": stats.repairs_per_minute,
    }


def metadata_of_repair(stats: QueueStats, summary: RepairSummary) -> dict[str, Any]:
    """The queue behind a run, and what the run repaired, under names that are plotted behind those of the queue.

    The aggregates that were taken first are listed, so that somebody sees whether theirs was among them, and those that
    were parked; their tasks are not known, for the run names aggregates.
    """
    numbers = {name: getattr(summary, name) for name in ("aggregates", "claimed", "retried", "parked", "lost")}
    numbers |= {"repaired": summary.completed, "seconds": round(summary.seconds, 3)}
    numbers["repaired_per_second"] = round(summary.completed / max(summary.seconds, 1e-9), 1)
    for read_model, counts in summary.read_models.items():
        numbers |= {f"{read_model}/{write}": getattr(counts, write) for write in WRITES}
    said: dict[str, Any] = {**numbers_of(stats), **{f"repair/{name}": number for name, number in numbers.items()}}
    columns = ("aggregate_type", "aggregate_id")
    if summary.first_taken:
        taken = (dict(zip(columns, aggregate, strict=True)) for aggregate in summary.first_taken)
        said["taken"] = table(taken, dict.fromkeys(columns))
    if summary.dead_letters:
        said["parked_now"] = table_of_dead_letters(
            {**{name: getattr(letter, name) for name in (*columns, "reason")}, "attempts": [{"detail": letter.detail}]}
            for letter in summary.dead_letters[:SHOWN]
        )
    return said


def table_of_dead_letters(tasks: Iterable[Document]) -> dg.TableMetadataValue:
    """Tasks as a table, whatever their producers put there."""
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
        "attempts": retries if isinstance(retries, int) else 0,
        "since": _stored(task.get("created_at")),
    }


def _stored(value: Any) -> str:
    """A stored value as text."""
    return "" if value is None else one_line(json_text(value)[:_LONGEST_TEXT])
