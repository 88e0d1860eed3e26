"""Asset checks on the read models: what a verification found, as Dagster keeps and plots it.

Unpartitioned: Dagster shows a partitioned check as skipped after runs over ranges.
"""

# Without `from __future__ import annotations`: Dagster takes the class of `context`, not its name.
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import dagster as dg

from readmodel_pipelines.orchestration.metadata import FINDINGS_SHOWN, in_time, metadata_of, table_of
from readmodel_pipelines.orchestration.partitions import READ_MODELS
from readmodel_pipelines.orchestration.resources import MongoResource
from readmodel_pipelines.orchestration.verification import VerifyConfig, request_of
from readmodel_pipelines.reconcile.outcome import Outcome
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings

MATCHES, INTACT, FRESH = "matches_events", "streams_intact", "is_fresh"

_DESCRIPTIONS = {
    MATCHES: "Whether every document is what its events say, in every field and its type: execute it when somebody "
    "doubts the read model. An error when documents differ, are missing, unexpected or orphaned; a warning while all "
    "of that is younger than READMODEL_ALARM_AFTER_SECONDS, or when what is known from earlier was not looked at this "
    "time. Materialize the asset to mend it. Changes no document.",
    INTACT: "Whether the streams can be trusted. An error lists malformed ones with the reason and the first offending "
    "event: mend whoever wrote it; their documents are left as they are. Changes no document.",
    FRESH: "Whether what was appended in the last READMODEL_FRESH_MINUTES is projected, but for the last "
    "READMODEL_GRACE_SECONDS. A warning: a repair or the next event may mend it. Looks at those aggregates only; "
    "changes nothing, and remembers nothing.",
}


def evaluations(
    summary: Summary, name: str, settings: Settings, max_findings: int = FINDINGS_SHOWN
) -> dict[str, dict[str, Any]]:
    """What `matches_events` and `streams_intact` of a read model say after a verification, by their names."""
    return {
        MATCHES: _matches(summary, name, settings, max_findings),
        INTACT: _intact(summary, name, max_findings),
    }


def fresh(summary: Summary, name: str, max_findings: int = FINDINGS_SHOWN) -> dict[str, Any]:
    """What `is_fresh` says after a look at young events."""
    counts = summary.read_models[name]
    found = counts.discrepancies - counts.malformed
    what = f"{counts.checked:,} aggregates with {(summary.scope.coverage or '').removeprefix('what got ')}"
    return {
        "passed": not found,
        "severity": dg.AssetCheckSeverity.WARN,
        "description": f"{found:,} of {what} are not projected." if found else f"{what} are projected.",
        "metadata": _about(summary, name, max_findings, malformed=False),
    }


@dg.multi_asset_check(
    name="verify_read_model_checks",
    specs=[
        dg.AssetCheckSpec(check, asset=item.read_model, description=description)
        for item in READ_MODELS.values()
        for check, description in _DESCRIPTIONS.items()
    ],
    can_subset=True,
)
def read_model_checks(
    context: dg.AssetCheckExecutionContext, config: VerifyConfig, mongo: MongoResource
) -> Iterator[dg.AssetCheckResult]:
    """Verify the read models whose checks are chosen, in one pass over each source stream, and say what was found.

    Changes no document; unless read_only it remembers findings in `readmodel_findings`.
    """
    chosen = {(key.asset_key.to_user_string(), key.name) for key in context.selected_asset_check_keys}
    results: dict[tuple[str, str], dict[str, Any]] = {}
    models = {name: item.read_model for name, item in READ_MODELS.items()}
    whole = [name for name, item in models.items() if {(item, MATCHES), (item, INTACT)} & chosen]
    young = [name for name, item in models.items() if (item, FRESH) in chosen]
    if whole:
        request = partial(request_of, config, read_models=whole, run_id=context.run.run_id)
        summary, settings = mongo.verify(context, whole, request)
        for name in whole:
            said = evaluations(summary, models[name], settings, config.max_findings)
            results |= {(models[name], check): result for check, result in said.items()}
    if young:
        summary = mongo.verify_fresh(context, young)
        for name in young:
            results[models[name], FRESH] = fresh(summary, models[name], config.max_findings)
    for (asset, check), result in results.items():
        if (asset, check) in chosen:
            yield dg.AssetCheckResult(asset_key=asset, check_name=check, **result)


def _matches(summary: Summary, name: str, settings: Settings, max_findings: int) -> dict[str, Any]:
    counts = summary.read_models[name]
    found = counts.discrepancies - counts.malformed
    oldest = summary.oldest_seconds.get(name, 0.0)
    what = f"Looked at {summary.scope.coverage}: {counts.checked:,} aggregates."
    elsewhere = summary.elsewhere.get(name, Counter())
    unseen = elsewhere.total() - elsewhere[Outcome.MALFORMED]
    known_too = _known_from_earlier(unseen)
    if not found:
        agreement = summary.agreement
        return {
            "passed": not unseen,
            "severity": dg.AssetCheckSeverity.WARN,
            "description": f"{agreement[0].upper()}{agreement[1:]}. {what}{known_too}",
            "metadata": _about(summary, name, max_findings, malformed=False),
        }
    kinds = ", ".join(
        f"{number:,} {outcome.value}"
        for outcome in (Outcome.DIFFERENT, Outcome.MISSING, Outcome.UNEXPECTED, Outcome.ORPHAN)
        if (number := getattr(counts, outcome.value))
    )
    known = name in summary.oldest_seconds
    young = known and oldest < settings.alarm_after_seconds
    since = f" The oldest is known for {in_time(oldest)}." if oldest >= 1 else ""
    return {
        "passed": False,
        "severity": dg.AssetCheckSeverity.WARN if young else dg.AssetCheckSeverity.ERROR,
        "description": f"{kinds}. {what}{since}{known_too} Materialize the asset to mend them.",
        "metadata": _about(summary, name, max_findings, malformed=False),
    }


def _intact(summary: Summary, name: str, max_findings: int) -> dict[str, Any]:
    counts = summary.read_models[name]
    unseen = summary.elsewhere.get(name, Counter())[Outcome.MALFORMED]
    if counts.malformed:
        said = f"{counts.malformed:,} streams are malformed: mend their events first."
    else:
        said = "Every stream can be trusted." if summary.looked_at_all else "No malformed stream was met."
    return {
        "passed": not counts.malformed and not unseen,
        "severity": dg.AssetCheckSeverity.ERROR if counts.malformed else dg.AssetCheckSeverity.WARN,
        "description": f"{said} Looked at {summary.scope.coverage}.{_known_from_earlier(unseen)}",
        "metadata": _about(summary, name, max_findings, malformed=True),
    }


def _known_from_earlier(number: int) -> str:
    return f" {number:,} known from earlier verifications lie outside and may still be there." if number else ""


def _about(summary: Summary, name: str, max_findings: int, *, malformed: bool) -> dict[str, Any]:
    """Counts, by field and by reason too, and the first findings of the kind."""
    said = metadata_of(summary, name, max_findings=0)
    # Its page is narrow, and says the same in numbers that are plotted.
    del said["outcomes"]
    found = [item for item in summary.findings if item.read_model == name]
    shown = [item for item in found if (item.outcome is Outcome.MALFORMED) is malformed][:max_findings]
    if malformed:
        for reason, number in sorted(summary.reasons[name].items()):
            said[f"reason/{reason}"] = number
    if shown:
        said["findings"] = table_of(shown)
    return said
