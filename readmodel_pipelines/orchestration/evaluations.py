"""The results of a read model's checks: after a verification, after a rebuild, of recent events, or without any event.

Each result is a value. A check returns it, and a run logs it.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import dagster as dg

from readmodel_pipelines.errors import NoEvents
from readmodel_pipelines.orchestration.failure import Failed
from readmodel_pipelines.orchestration.metadata import on_check
from readmodel_pipelines.orchestration.tables import table_of
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.outages import sentence
from readmodel_pipelines.reconcile.outcome import Outcome
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.wording import numbers, span, storable

MATCHES, INTACT, FRESH = "matches_events", "streams_intact", "is_fresh"

Evaluated = dict[str, Any]
"""The common fields of an `AssetCheckResult`, which a check returns, and an `AssetCheckEvaluation`, which a run or a
sensor logs.
"""


def fresh(summary: Summary, name: str, max_findings: int) -> Evaluated:
    """The result of `is_fresh` after a verification of recent events."""
    counts = summary.read_models[name]
    found = counts.discrepancies - counts.malformed
    what = f"{counts.checked:,} aggregates with {summary.scope.young}"
    said = f"{found:,} of {what} are not projected." if found else f"{what} are projected."
    return evaluated(name, FRESH, said, _about(summary, name, max_findings), passed=not found, error=False)


def without_events(failed: Failed) -> Iterator[Evaluated]:
    """Failed results for the read models without any event; none if `failed` has another cause."""
    if isinstance(failed.error, NoEvents):
        for name in failed.error.read_models:
            for check in (MATCHES, INTACT, FRESH):
                yield evaluated(name, check, str(failed.error), {}, passed=False)


def matches(summary: Summary, name: str, settings: Settings, max_findings: int) -> Evaluated:
    """The result of `matches_events` after a verification."""
    counts = summary.read_models[name]
    oldest = summary.oldest_seconds.get(name, 0.0)
    what = f"Compared {summary.scope.coverage}: {counts.checked:,} aggregates."
    elsewhere = summary.elsewhere.get(name, Counter())
    unseen = elsewhere.total() - elsewhere[Outcome.MALFORMED]
    if ignored := summary.ignored[name]:
        what += f" {ignored:,} more are ignored; `readmodel findings list` shows them."
    metadata = _about(summary, name, max_findings)
    if counts.discrepancies == counts.malformed:
        agreement = summary.agreement
        said = f"{agreement[0].upper()}{agreement[1:]}. {what}{_known_from_earlier(unseen)}"
        return evaluated(name, MATCHES, said, metadata, passed=not unseen, error=False)
    outcomes = (Outcome.DIFFERENT, Outcome.MISSING, Outcome.UNEXPECTED, Outcome.ORPHAN)
    kinds = numbers({outcome.value: getattr(counts, outcome.value) for outcome in outcomes})
    young = name in summary.oldest_seconds and oldest < settings.alarm_after_seconds
    since = f" The oldest was found {span(oldest)} ago." if oldest >= 1 else ""
    why = f" {sentence(summary.outages, name)}".rstrip()
    said = f"{kinds}.{why} {what}{since}{_known_from_earlier(unseen)} Materialize the asset to repair them."
    return evaluated(name, MATCHES, said, metadata, passed=False, error=not young)


def rebuilt(summary: Summary, name: str, max_findings: int) -> Iterator[Evaluated]:
    """The results of `matches_events` and `streams_intact` after a rebuild that compared everything; none before its
    end.
    """
    state, counts = summary.rebuild_of(name).state, summary.read_models[name]
    if state not in (RebuildState.DONE, RebuildState.REFUSED) or summary.rebuild_of(name).already_done:
        return
    left = [item for item in summary.findings if item.read_model == name and item.failed]
    metadata = on_check(summary, name)
    if left[:max_findings]:
        metadata["findings"] = table_of(left[:max_findings])
    right = state is RebuildState.DONE and not counts.failed
    said = f"A rebuild compared {counts.checked:,} aggregates. "
    said += (
        "Every document matches its events."
        if right
        else f"{counts.failed:,} could not be rebuilt; the run shows the reasons."
    )
    yield evaluated(name, MATCHES, said, metadata, passed=right)
    yield intact(summary, name, max_findings)


def intact(summary: Summary, name: str, max_findings: int) -> Evaluated:
    """The result of `streams_intact` after a verification."""
    malformed = summary.read_models[name].malformed
    unseen = summary.elsewhere.get(name, Counter())[Outcome.MALFORMED]
    if malformed:
        said = f"{malformed:,} streams are malformed. Correct their events first."
    else:
        said = "Every stream is intact." if summary.looked_at_all else "No malformed stream was found."
    return evaluated(
        name,
        INTACT,
        f"{said} Compared {summary.scope.coverage or 'every aggregate'}.{_known_from_earlier(unseen)}",
        _about(summary, name, max_findings, malformed=True),
        passed=not malformed and not unseen,
        error=bool(malformed),
    )


def evaluated(
    asset: str, check: str, description: str, metadata: dict[str, Any], *, passed: bool = True, error: bool = True
) -> Evaluated:
    """A check's result. A failed check is an error, or a warning if `error` is false."""
    return {
        "asset_key": dg.AssetKey(asset),
        "check_name": check,
        "passed": passed,
        "severity": dg.AssetCheckSeverity.ERROR if error else dg.AssetCheckSeverity.WARN,
        "description": storable(description),
        "metadata": metadata,
    }


def _known_from_earlier(number: int) -> str:
    return f" {number:,} earlier findings were not compared again and may still exist." if number else ""


def _about(summary: Summary, name: str, max_findings: int, *, malformed: bool = False) -> dict[str, Any]:
    """Counts, also by field and by reason, and the first findings of this kind."""
    found = [item for item in summary.findings if item.read_model == name]
    shown = [item for item in found if (item.outcome is Outcome.MALFORMED) is malformed][:max_findings]
    said = on_check(summary, name, with_causes=not malformed)
    return {"findings": table_of(shown), **said} if shown else said
