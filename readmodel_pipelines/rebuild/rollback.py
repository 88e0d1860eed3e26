"""Rolling a rebuild in a shadow back: what was before it takes its place again, and is looked over.

The copy is as old as the rebuild. What got events since is caught up with; what was wrong then already, or was repaired
since without an event, only a look at everything finds. It is told and not mended: most often the events or the
projection are what the rollback is to get away from.
"""

import time
from collections.abc import Iterator, Mapping, Sequence

from readmodel_pipelines.bookkeeping.kept_keys import forget
from readmodel_pipelines.bookkeeping.leases import hold_leases
from readmodel_pipelines.bookkeeping.rebuilds import RebuildRecord, Rebuilds
from readmodel_pipelines.bookkeeping.verifications import Verifications
from readmodel_pipelines.cutover.shadow import index_like, swap
from readmodel_pipelines.errors import NoCopy, UsageError
from readmodel_pipelines.lanes import OpenedPass, contested, counts_of
from readmodel_pipelines.mongo.changes import HistoryLost
from readmodel_pipelines.mongo.driver import DENIED, Database, OperationFailure, there
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import by_fold, projections_for
from readmodel_pipelines.rebuild.catch_up import CatchUp, Following
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.about import RebuildOutcome
from readmodel_pipelines.reconcile.outcome import Outcome
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.spread import look_at_all, workers_for
from readmodel_pipelines.wording import count


def roll_back(database: Database, settings: Settings, rebuild_id: str) -> Summary:
    """Put back the copies of what the read models were before a rebuild in a shadow, catch up, and look at everything.

    What others wrote to foreign fields since then is lost, and so is what the rebuild made. A document that was wrong
    when the copy was made, or was repaired since without a new event, is wrong again: it is a finding, and counts as
    failed, but where the copy is known to be of another schema version than the projection that is at hand.

    Raises:
        UsageError: there is no such rebuild, it is not done, or it has no copy; or another one is unfinished.
        ReadModelBusy: somebody rebuilds one of the read models.
    """
    rebuilds = Rebuilds(database)
    record = rebuilds.get(rebuild_id)
    store = Store(database, settings, [item for item in projections_for(settings) if item.name in record.names])
    summary = Summary("rebuild", "all", read_models=counts_of(store.projections))
    started = time.perf_counter()
    with hold_leases(database, record.read_models, settings.lease_seconds) as held:
        # Again: meanwhile another rebuild would have made copies of the same names.
        record = rebuilds.get(rebuild_id)
        kept = there(database, record.copies.values())
        copies = {name: copy for name, copy in record.copies.items() if copy in kept}
        summary.warnings += _check_rollback(rebuilds, record, store.projections, copies)
        restored = [item for item in store.projections if item.read_model in copies] or store.projections
        summary.warnings += _forget_how_far(database, restored)
        record = rebuilds.to(record, RebuildState.ROLLED_BACK, token=record.copy_token, live_tokens={})
        for item in store.projections:
            if item.read_model in copies:
                live = store.live(item).name
                index_like(database, live, copies[item.read_model], item)
                held.check()
                swap(database, copies[item.read_model], live)
        following = Following(store, record)
        try:
            catch_up = CatchUp(store, following, held.check)
            warning = catch_up.until_nothing_is_written()
        except HistoryLost as error:
            warning = f"{error}: rebuild in place, for what happened since the copy was made is missing."
        finally:
            following.close()
            forget(database, record.read_models, record.id)
    summary.warnings += [warning] if warning else []
    names = [item.read_model for item in restored]
    summary.rebuilds.append(
        RebuildOutcome(rebuild_id, caught_up=catch_up.written, state=RebuildState.ROLLED_BACK, read_models=names)
    )
    for group in by_fold(restored):
        _look_over(store.of(group), summary)
    for item in restored:
        summary.warnings += _judge(rebuilds, record, store.live(item).name, item, summary)
    summary.seconds = time.perf_counter() - started
    return summary


def _forget_how_far(database: Database, projections: Sequence[Projection]) -> list[str]:
    """What comes back was verified by nobody: the next verification of what changed looks at everything."""
    try:
        Verifications(database).forget_watermarks([item.read_model for item in projections])
    except OperationFailure as error:
        if error.code not in DENIED:
            raise
        return [
            "The user may not delete from readmodel_watermarks: verify everything before the next verification of what "
            "changed (`--since last`)."
        ]
    return []


def _look_over(store: Store, summary: Summary) -> None:
    """Verify read models that are made from the same streams."""
    events = EventStore(store.events)
    claims = contested(events, store.projections)
    opened = OpenedPass(store, summary.read_models, claims, events=events)
    sinks = opened.into(lambda lane: opened.confirm(lane, summary))
    opened.reconcile_odd_ids()
    look_at_all(opened, store.settings, workers_for(store.settings, store.events.estimated_document_count()))
    for sink in sinks:
        sink.look_again()
    for sink in sinks:
        sink.finish()
    summary.events += events.events_read


def _judge(
    rebuilds: Rebuilds, record: RebuildRecord, live: str, projection: Projection, summary: Summary
) -> Iterator[str]:
    """Count what is wrong as failed; gives it in words."""
    name, counts = projection.read_model, summary.read_models[projection.read_model]
    before, now = _schema_before(rebuilds, record, live, name), projection.schema_version
    of_another = before not in (None, now)
    wrong = counts.discrepancies - counts.malformed - (counts.different if of_another else 0)
    counts.failed += wrong
    for finding in summary.findings:
        if finding.read_model == name and not (of_another and finding.outcome is Outcome.DIFFERENT):
            finding.failed = True
    if of_another and counts.different:
        fields = ", ".join(sorted(summary.differing[name]))
        yield (
            f"{count(counts.different, 'document')} of {name}, from before, where the schema version was {before}, "
            f"are not what version {now} makes of {fields}. Which of them are stale tells "
            f"`readmodel verify-consistency --type {projection.name} --all` of the release that makes version {before}."
        )
    if wrong:
        older = "" if before else " If its copy is of an older schema, release that first: then verify, and rebuild."
        yield (
            f"{count(wrong, 'document')} of {name} are not what their events say: they were not when the copy was "
            f"made, or were repaired since. `readmodel rebuild-readmodel --type {projection.name} --all` mends "
            f"them.{older}"
        )


def _schema_before(rebuilds: Rebuilds, record: RebuildRecord, live: str, read_model: str) -> int | None:
    """The schema version that the copy was last rebuilt with, as far as that is on record."""
    earlier = {"state": RebuildState.DONE.value, "started_at": {"$lt": record.started_at}}
    for stored in rebuilds.listed(1, read_models=live, **earlier):
        version = (stored.get("schema_versions") or {}).get(read_model)
        return version if isinstance(version, int) else None
    return None


def _check_rollback(
    rebuilds: Rebuilds, record: RebuildRecord, projections: Sequence[Projection], copies: Mapping[str, str]
) -> list[str]:
    """Refuse a rollback that cannot be, or that would spoil another rebuild; gives what it leaves out, in words."""
    again = record.state is RebuildState.ROLLED_BACK
    if not copies and not again:
        raise NoCopy(
            f"Rebuild {record.id} has no copy of what was before.",
            hint="Only a rebuild in a shadow keeps one, until the next (READMODEL_KEEP_COPY).",
        )
    others = [other for other in rebuilds.unfinished(record.read_models) if other.id != record.id]
    for other in others:
        raise UsageError(
            f"Rebuild {other.id} of {' and '.join(other.read_models)} is unfinished, and would go on with what "
            "the rollback replaces.",
            hint=f"Resume it, or abort it first: `readmodel rebuilds abort {other.id}`.",
        )
    unknown = set(record.names) - {item.name for item in projections}
    if unknown:
        raise UsageError(
            f"Rebuild {record.id} made {', '.join(sorted(unknown))}, which there is no projection of any more.",
            hint="Name it in READMODEL_PROJECTIONS until the rollback is done.",
        )
    without = [] if again else [item.read_model for item in projections if item.read_model not in copies]
    return [f"{read_model} has no copy of what was before, and stays as it is." for read_model in without]
