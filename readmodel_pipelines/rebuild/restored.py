"""Finds documents that a rollback restored wrong, by a verification of everything; reports them and queues repairs.

The copy is as old as the rebuild. The rollback applies later events. But only this verification finds documents that
were already wrong, or were repaired since without an event. It corrects nothing, because the projection itself may be
the reason for the rollback. If the copy may have another schema version, it queues only documents that are certainly
stale: those that equal this projection's fold of an earlier version of the stream.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from readmodel_pipelines.batched import batched
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.events.ids import is_aggregate_id
from readmodel_pipelines.lanes import OpenedPass, contested
from readmodel_pipelines.mongo.driver import DENIED, OperationFailure
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.reconcile.deletions import DeletionLimit
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.outcome import Outcome
from readmodel_pipelines.reconcile.recheck import Recheck
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.spread import compare_all
from readmodel_pipelines.wording import count

_AT_ONCE = 500
_GOES = (Outcome.ORPHAN, Outcome.UNEXPECTED)


@dataclass
class _Wrong:
    """The aggregates of one read model that a repair may correct, at most `limit` of each kind."""

    projection: Projection
    again: Recheck
    same_schema: bool
    limit: int
    correct: dict[str, None] = field(default_factory=dict)
    delete: dict[str, None] = field(default_factory=dict)
    left_out: int = 0

    def __call__(self, _: Projection, findings: Sequence[Finding]) -> None:
        """Collect the aggregates of these findings."""
        ids = {item.aggregate_id: item for item in findings if is_aggregate_id(item.aggregate_id)}
        doubtful = [key for key, item in ids.items() if item.outcome is Outcome.DIFFERENT and not self.same_schema]
        stale = self.again.behind(dict.fromkeys(doubtful, 1))
        for key, item in ids.items():
            if item.outcome is not Outcome.MALFORMED and (key not in doubtful or key in stale):
                into = self.delete if item.outcome in _GOES else self.correct
                if len(into) < self.limit:
                    into[key] = None
                else:
                    self.left_out += 1


def verify_restored(store: Store, record: RebuildRecord, summary: Summary) -> None:
    """Verify restored read models of the same streams; report, count and queue the wrong documents."""
    rebuilds = Rebuilds(store.database)
    before = {
        item.read_model: rebuilds.made_with(
            store.live(item).name, item.read_model, started_at={"$lt": record.started_at}
        )
        for item in store.projections
    }
    events = EventStore(store.events)
    claims = contested(events, store.projections)
    opened = OpenedPass(store, summary.read_models, claims, events=events)
    wrong = {
        lane.projection.read_model: _Wrong(
            lane.projection,
            opened.again(lane),
            before[lane.projection.read_model] == lane.projection.schema_version,
            store.settings.enqueue_limit,
        )
        for lane in opened.lanes
    }
    sinks = opened.into(lambda lane: opened.confirm(lane, summary, wrong[lane.projection.read_model]))
    opened.reconcile_odd_ids()
    compare_all(opened, store.settings, store.events.estimated_document_count())
    for sink in sinks:
        sink.look_again()
    for sink in sinks:
        sink.finish()
    summary.events += events.events_read
    for item in store.projections:
        summary.warnings += _judge(before[item.read_model], item, summary)
        summary.warnings += _queue(store, wrong[item.read_model], record)


def _judge(before: int | None, projection: Projection, summary: Summary) -> Iterator[str]:
    """Count wrong documents as failed; returns a message."""
    name, counts = projection.read_model, summary.read_models[projection.read_model]
    now = projection.schema_version
    of_another = before not in (None, now)
    wrong = counts.discrepancies - counts.malformed - (counts.different if of_another else 0)
    counts.failed += wrong
    for finding in summary.findings:
        if finding.read_model == name and not (of_another and finding.outcome is Outcome.DIFFERENT):
            finding.failed = True
    if of_another and counts.different:
        fields = ", ".join(sorted(summary.differing[name]))
        yield (
            f"{count(counts.different, 'document')} of {name}, of schema version {before}, differ from version {now} "
            f"in {fields}. To find the stale ones, run `readmodel verify-consistency --type {projection.name} --all` "
            f"with the release of version {before}."
        )
    if wrong:
        older = "" if before else " If its copy is of an older schema, release that first: then verify, and rebuild."
        yield (
            f"{count(wrong, 'document')} of {name} differ from their events. They were wrong when the copy was made, "
            f"or were repaired since. `readmodel rebuild-readmodel --type {projection.name} --all` repairs them.{older}"
        )


def _queue(store: Store, wrong: _Wrong, record: RebuildRecord) -> Iterator[str]:
    """Queue repairs of wrong documents; returns messages with the queued and refused numbers."""
    name, queued = wrong.projection.read_model, 0
    documents = store.live(wrong.projection).estimated_document_count()
    limit = DeletionLimit(store.settings.max_delete_share)
    if wrong.delete and not limit.allows(len(wrong.delete), documents):
        yield limit.refusal(name, len(wrong.delete), documents)
        wrong.delete.clear()
    queue = RepairQueue(store.database, store.settings)
    why = f"put back by the rollback of {record.id}"
    try:
        for ids in batched({**wrong.correct, **wrong.delete}, _AT_ONCE):
            _, refused = queue.add_many(ids, wrong.projection.name, why)
            # An aggregate with a pending task needs no second one.
            queued += len(ids) - refused
            wrong.left_out += refused
    except OperationFailure as error:
        if error.code not in DENIED:
            raise
        yield f"The user may not write to {store.settings.repair_queue_collection}: no repair of {name} was queued."
        return
    if queued:
        yield (
            f"{name}: repairs of {count(queued, 'document')} are in the repair queue. They use the projection that is "
            "deployed then: if it is the reason of the rollback, deploy the previous one first."
        )
    if wrong.left_out:
        yield (
            f"{name}: {wrong.left_out:,} repairs were not queued: READMODEL_ENQUEUE_LIMIT or "
            "READMODEL_REPAIR_QUEUE_LIMIT is reached."
        )
