"""Metadata of runs, assets, checks and the repair queue: sentences, tables, and the few plotted numbers.

The page of a run and `--launch` show every number. The pages of assets and checks plot only trends: the drift found by
verifications, one line per kind of coverage, and the duration and writes of rebuilds. Dagster plots each number in
alphabetical order, so all other numbers are texts there, and zeros are left out.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

import dagster as dg

from readmodel_pipelines.bookkeeping.queue_stats import QueueStats
from readmodel_pipelines.orchestration import SETTINGS_AT_LOAD
from readmodel_pipelines.orchestration.config import SHOWN
from readmodel_pipelines.orchestration.failure import failure
from readmodel_pipelines.orchestration.tables import (
    table,
    table_of,
    table_of_causes,
    table_of_changes,
    table_of_dead_letters,
    table_of_numbers,
    table_of_outcomes,
)
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.finding import kind_of
from readmodel_pipelines.reconcile.outages import sentence
from readmodel_pipelines.reconcile.outcome import WRITES, Counts, Outcome, Why
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.repair.summary import RepairSummary
from readmodel_pipelines.shares import shared
from readmodel_pipelines.wording import numbers, one_line

_WRITES = (*WRITES, "superseded", "failed")
_OUTCOMES = tuple(item.value for item in Outcome)
_PLOTTED_OF_REBUILDS = ("seconds", "events_per_second", "written", "dagster/row_count")
_OF_FINDINGS = ("why", "findings", "causes", "changes")
_SAID_ABOVE = ("result", "why", "open_report")


def metadata_of(
    summary: Summary, read_model: str, *, max_findings: int, documents: int | None = None
) -> dict[str, Any]:
    """Metadata of a read model for the page of a run: a sentence and the findings, then all tables and numbers.

    `documents` is the number of documents in the read model after a full rebuild.
    """
    counts = summary.read_models[read_model]
    said: dict[str, Any] = {"result": in_words(summary, read_model)}
    causes = summary.outages.of(read_model)
    if causes:
        said["why"] = one_line(sentence(summary.outages, read_model))
    findings = shared((item for item in summary.findings if item.read_model == read_model), max_findings, kind_of)
    if findings:
        said["findings"] = table_of(findings)
    if causes:
        said["causes"] = table_of_causes(causes)
    if read_model in summary.changes and (changes := table_of_changes(summary.changes[read_model])):
        said["changes"] = changes
    said |= _reports(summary)
    said |= {"outcomes": table_of_outcomes(summary), "verb": summary.verb}
    said |= {**counts.as_dict(), "discrepancies": counts.discrepancies, "written": counts.written}
    if summary.verb == "verify":
        said = {name: value for name, value in said.items() if name not in (*_WRITES, "written")}
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
    return said


def on_pages(said: Mapping[str, Any], summary: Summary, read_model: str, *, mended: bool = False) -> dict[str, Any]:
    """The same metadata for the page of an asset or a check, which plots numbers.

    If `mended`, the findings are left out.
    """
    shown = {
        name: value
        for name, value in plain(said, () if summary.verb == "verify" else _PLOTTED_OF_REBUILDS).items()
        if not (mended and name in _OF_FINDINGS)
    }
    if mended:
        # The page shows the last materialization, not later findings.
        address = f"/assets/{read_model}?view=checks&checkDetail=matches_events"
        shown = {"newest_verification": dg.MetadataValue.url(address), **shown}
    return shown | _drift(summary, summary.read_models[read_model].discrepancies)


def _drift(summary: Summary, number: int) -> dict[str, int]:
    look = summary.scope.look if summary.verb == "verify" else ""
    return {f"drift/{look}": number} if look else {}


def on_check(summary: Summary, read_model: str, *, with_causes: bool = True) -> dict[str, Any]:
    """The same metadata for the page of a check: narrow, with a sentence above, and in alphabetical order.

    The caller adds the table of findings, which must stand first. So all other numbers go into one table.
    """
    said = metadata_of(summary, read_model, max_findings=0)
    said |= {f"reason/{reason}": number for reason, number in sorted(summary.reasons[read_model].items())}
    shown = {name: value for name, value in said.items() if name.startswith("report")}
    if with_causes and (causes := summary.outages.of(read_model)):
        shown["findings_by_cause"] = table_of_causes(causes, narrow=True)
    rest = {
        name: str(value) for name, value in plain(said).items() if isinstance(value, str) and name not in _SAID_ABOVE
    }
    shown["numbers"] = table_of_numbers(rest)
    counts = summary.read_models[read_model]
    return shown | _drift(summary, counts.discrepancies if with_causes else counts.malformed)


def plain(said: Mapping[str, Any], plotted: Iterable[str] = ()) -> dict[str, Any]:
    """Metadata with numbers only for the names in `plotted`. Other numbers become texts, and zeros are left out."""
    kept = set(plotted)
    return {
        name: f"{value:,}" if type(value) in (int, float) and name not in kept else value
        for name, value in said.items()
        if name in kept or type(value) not in (int, float) or value
    }


def _reports(summary: Summary) -> dict[str, Any]:
    """The reports: a link if READMODEL_REPORTS_URL is set, else the path and how to open it."""
    said: dict[str, Any] = {}
    for place in summary.scope.reports or ():
        name = f"report{PurePath(place).suffix}"
        if SETTINGS_AT_LOAD.reports_url:
            address = f"{SETTINGS_AT_LOAD.reports_url.rstrip('/')}/{quote(PurePath(place).name)}"
            said[name] = dg.MetadataValue.url(address)
        else:
            said[name] = dg.MetadataValue.path(place)
    if said and not SETTINGS_AT_LOAD.reports_url:
        said["open_report"] = "run `readmodel reports` on the machine of the run"
    return said


def metadata_of_one(summary: Summary, read_model: str, aggregate_id: str) -> dict[str, Any]:
    """Metadata of one aggregate, as texts, so that Dagster does not plot it with whole read models."""
    counts = summary.read_models[read_model]
    said: dict[str, Any] = {}
    if findings := [item for item in summary.findings if item.read_model == read_model]:
        said["findings"] = table_of(findings)
    return said | {
        "verb": summary.verb,
        "aggregate_id": aggregate_id,
        "outcome": _names(counts, _OUTCOMES),
        "written" if summary.verb == "rebuild" else "would_write": _names(counts, _WRITES) or "nothing",
        "events_read": f"{summary.events:,}",
    }


def in_words(summary: Summary, read_model: str = "") -> str:
    """The outcome as one sentence per read model, or for one."""
    writes = {"verify": "", "dry_run": "; a rebuild would write: {}", "rebuild": "; written: {}"}[summary.verb]
    return " ".join(
        f"{name}: {counts.checked:,} aggregates compared: "
        f"{_numbers(counts, _OUTCOMES) or 'none found'}{writes.format(_numbers(counts, _WRITES) or 'nothing')}."
        for name, counts in summary.read_models.items()
        if read_model in ("", name)
    )


def raise_unless_ok(summary: Summary, metadata: Mapping[str, Mapping[str, Any]]) -> None:
    """Fail the run, with a sentence and the `metadata` of each read model, if something is still wrong."""
    if not summary.ok:
        raise failure(f"{' '.join(_wrong(summary))} {' '.join(_what_to_do(summary))}", of_each(metadata))


def of_each(metadata: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The metadata of several read models on one page; each name is prefixed with its read model."""
    return {
        f"{read_model}/{name}" if len(metadata) > 1 else name: value
        for read_model, said in metadata.items()
        for name, value in said.items()
    }


def _wrong(summary: Summary) -> Iterator[str]:
    if summary.rebuild.state is RebuildState.REFUSED:
        yield from map(one_line, summary.warnings)
    for name, counts in summary.read_models.items():
        verify = summary.verb == "verify"
        bad = counts.discrepancies if verify else counts.malformed + counts.failed
        kinds = _numbers(counts, [name for name in _OUTCOMES if name != "same"] if verify else ["malformed", "failed"])
        number = f"{bad:,} of {counts.checked:,} aggregates"
        told = {
            "verify": f"{number} do not match their events: {kinds}.",
            "rebuild": f"{number} could not be rebuilt: {kinds}. All others match their events.",
            "dry_run": f"a rebuild could not write {number}: {kinds}.",
        }
        if bad:
            yield f"{name}: {told[summary.verb]}"


def _what_to_do(summary: Summary) -> Iterator[str]:
    every = summary.read_models.values()
    if summary.verb == "verify" and any(counts.discrepancies > counts.malformed for counts in every):
        yield "Materialize the asset or run rebuild_read_models to repair them."
    if any(counts.malformed for counts in every):
        yield "Documents of malformed streams are left unchanged until the events are corrected."
    if any(finding.reason == Why.DELETIONS_REFUSED for finding in summary.findings):
        yield (
            "The deletions were refused because they exceed the limit. Verify first, and set allow_deletions if the "
            "events are complete."
        )
    elif any(counts.failed for counts in every):
        yield "Run it again. If it fails again, see the reasons."
    yield "The table of findings lists the aggregates with their reasons."


def _names(counts: Counts, names: Iterable[str]) -> str:
    """Outcomes of one aggregate, which can have several documents."""
    there = [(name, number) for name in names if (number := getattr(counts, name))]
    return ", ".join(name if number == 1 else f"{number} {name}" for name, number in there)


def _numbers(counts: Counts, names: Iterable[str]) -> str:
    return numbers({name: getattr(counts, name) for name in names})


def numbers_of(stats: QueueStats) -> dict[str, int | float]:
    """The queue's numbers, for Dagster to plot."""
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
    """The result of a repair run and the state of the queue: a sentence, dead letters and aggregates, then numbers.

    The table lists the first aggregates that the run took, so that a reader can find theirs, and all new dead letters.
    Task ids are unknown here, because the run works by aggregate.
    """
    said: dict[str, Any] = {"result": summary.in_words()}
    columns = ("aggregate_type", "aggregate_id")
    if summary.dead_letters:
        said["dead_letters_now"] = table_of_dead_letters(
            {**{name: getattr(letter, name) for name in (*columns, "reason")}, "attempts": [{"detail": letter.detail}]}
            for letter in summary.dead_letters[:SHOWN]
        )
    if summary.first_taken:
        taken = (dict(zip(columns, aggregate, strict=True)) for aggregate in summary.first_taken)
        said["taken"] = table(taken, dict.fromkeys(columns))
    numbers = {name: getattr(summary, name) for name in ("aggregates", "claimed", "retried", "parked", "lost")}
    numbers |= {"repaired": summary.completed, "seconds": round(summary.seconds, 3)}
    numbers["repaired_per_second"] = round(summary.completed / max(summary.seconds, 1e-9), 1)
    for read_model, counts in summary.read_models.items():
        numbers |= {f"{read_model}/{write}": getattr(counts, write) for write in WRITES}
    return {**said, **numbers_of(stats), **{f"repair/{name}": number for name, number in numbers.items()}}
