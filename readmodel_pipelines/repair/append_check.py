"""Checks events before they are appended: the documents of a stream with them, before anyone else has them.

An event that its own fold can never take would make its stream malformed permanently, so it is refused. For that the
stream is read once, which its read models need anyway. A different document is written when the events are appended,
under the usual condition. A document that is already right is compared once more then: see `AppendCheck.bring_in_line`.
"""

from collections.abc import Iterator, Sequence

import bson

from readmodel_pipelines.errors import EventRefused, ReadModelError
from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.events.stream import Malformed, Reason
from readmodel_pipelines.lanes import OpenedPass, contested, counts_of
from readmodel_pipelines.mongo.ahead import EventsAhead
from readmodel_pipelines.mongo.driver import Document
from readmodel_pipelines.mongo.indexes import ensure_for_empty
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import built_in
from readmodel_pipelines.reconcile.in_place import InPlace
from readmodel_pipelines.reconcile.join import MAX_DOCUMENT_BYTES, Lane
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict
from readmodel_pipelines.reconcile.summary import Summary


class _Verdicts:
    """The sink of one read model; keeps the few verdicts."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []

    def accept(self, verdict: Verdict) -> None:
        """Keep the verdict."""
        self.verdicts.append(verdict)

    @property
    def malformed(self) -> Malformed | None:
        """The reason why the read model cannot take the stream."""
        return next((verdict.malformed for verdict in self.verdicts if verdict.malformed), None)


class AppendCheck:
    """Folds one stream with the `new` events appended; the store's projections are all made from it.

    Raises:
        EventRefused: MongoDB cannot store one of them.
    """

    def __init__(self, store: Store, aggregate_id: str, new: Sequence[Document]) -> None:
        self._store = store
        self._aggregate_id = aggregate_id
        self._new = new
        self._events = EventsAhead(store.events, [_encoded(event) for event in new])
        self._summary = Summary("rebuild", "", read_models=counts_of(store.projections))
        claims = contested(self._events, store.projections, [aggregate_id])
        for item in store.projections:
            claims[item.read_model] = {**claims.get(item.read_model, {}), **self._contested(item)}
        self._opened = OpenedPass(store, self._summary.read_models, claims, events=self._events)
        self._found = self._opened.into(lambda _: _Verdicts())
        self._opened.reconcile([aggregate_id])

    @property
    def last(self) -> Document:
        """The last stored event, which the new ones follow; empty for a new stream."""
        return self._events.last

    def refuse_malformed(self) -> None:
        """Refuse events that a built-in read model could not take, or no read model at all.

        An added read model's own code refuses nothing. Neither does another stream that claims the same key; that is
        reported after the append.

        Raises:
            EventRefused: with the reason; nothing is written yet.
        """
        malformed = [(lane.projection, why) for lane, found in self._lanes() if (why := found.malformed)]
        ours = built_in(self._store.settings.task_source)
        new = [event["_id"] for event in self._new]
        for projection, why in malformed:
            of_all = projection in ours or len(malformed) == len(self._found)
            by_others = why.reason is Reason.KEY_CONFLICT and why.event_id not in new
            if of_all and not by_others and why.reason is not Reason.PROJECTION_FAILED:
                raise self._refused(projection, why)

    def _refused(self, projection: Projection, why: Malformed) -> EventRefused:
        new = [event["_id"] for event in self._new]
        if why.event_id in new:
            event = self._new[new.index(why.event_id)]
            what = f"{event['event_type']} cannot be appended as version {event['version']} of {self._aggregate_id}"
            hint = "Correct the event. DATA_CONTRACT.md has the type of each field."
        elif why.event_id is None:
            what = f"The events cannot be appended to {self._aggregate_id}"
            hint = f"{projection.read_model} could not store the resulting document."
        else:
            what = f"Nothing can be appended to {self._aggregate_id}, whose stream is malformed"
            hint = "Correct its stored events first: DATA_CONTRACT.md, «Malformed streams»."
        return EventRefused(f"{what}: {why.reason}: {why.detail}. Nothing was saved.", hint=hint)

    def bring_in_line(self) -> None:
        """Write the documents that differ, after the events are appended.

        The writer of an earlier event may still change a document that was right when it was compared. That writer
        searches for later events after its write, perhaps before ours is stored. So such a document is compared once
        more here: either this read finds its write, or that writer finds our event.

        Raises:
            ReadModelError: a read model could not be updated.
        """
        for lane, found in self._lanes():
            ensure_for_empty(self._store.live(lane.projection), lane.projection)
            again = self._opened.again(lane)
            sink = InPlace(again, self._summary, lambda: None)
            for verdict in found.verdicts or again.verdicts([self._aggregate_id]):
                self._summary.note(lane.projection.read_model, verdict)
                sink.accept(verdict)
            sink.finish()
        if not self._summary.ok:
            finding = next(item for item in self._summary.findings if item.failed or item.outcome is Outcome.MALFORMED)
            raise ReadModelError(f"{finding.read_model}: {finding.reason}: {finding.detail}")

    def _lanes(self) -> Iterator[tuple[Lane, _Verdicts]]:
        return zip(self._opened.lanes, self._found, strict=True)

    def _contested(self, projection: Projection) -> dict[str, Malformed]:
        """The claim of a new event on a key that another stream claims."""
        for event in self._new if projection.claims else ():
            event_type, name = projection.claims or ("", "")
            key = event["data"].get(name) or ""
            if event["event_type"] != event_type or not is_plain(key):
                continue
            other = self._events.other_claimant(projection.fold, (event_type, name), key, self._aggregate_id)
            if other:
                detail = f"{self._aggregate_id} and {other} claim the same {name}"
                return {self._aggregate_id: Malformed(Reason.KEY_CONFLICT, detail, event["version"], event["_id"])}
        return {}


def _encoded(event: Document) -> bytes:
    """The event as MongoDB stores it.

    Raises:
        EventRefused: MongoDB cannot store it.
    """
    what = f"{event['event_type']} cannot be stored as version {event['version']} of {event['aggregate_id']}"
    try:
        encoded = bson.encode(event)
    except Exception as error:  # the driver raises different errors for types that it does not know
        raise EventRefused(
            f"{what}: {error}. Nothing was saved.",
            hint="Use only texts in valid UTF-8, numbers, bools, datetimes, None, and lists and dicts of them.",
        ) from error
    if len(encoded) > MAX_DOCUMENT_BYTES:
        raise EventRefused(
            f"{what}: it would have {len(encoded):,} bytes. Nothing was saved.",
            hint="The maximum is 16 MiB. Split its data.",
        )
    return encoded
