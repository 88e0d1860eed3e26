"""The repository: appends events and updates their read models; a failed update is queued for repair.

    repository = EventRepository(database, settings)
    saved = repository.save(chat_id, "chat", [NewEvent("chat.renamed", {"new_title": "Tea"})], expected_version=7)
    saved.version      # 8
    saved.projected    # False: the read models are behind, and their repair is queued

An event that the fold of its own stream could never take is refused before the append, because it would make the stream
malformed permanently.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bson import DatetimeMS, ObjectId

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.errors import ConcurrencyConflict, EventRefused, ReadModelError, UsageError
from readmodel_pipelines.events.ids import is_aggregate_id
from readmodel_pipelines.events.stream import Fold
from readmodel_pipelines.events.values import ZERO_TIME_MS
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.driver import (
    DUPLICATE_KEY,
    MAJORITY,
    UNFIT,
    ClientSession,
    Database,
    Document,
    OperationFailure,
    ours,
)
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.repair.append_check import AppendCheck
from readmodel_pipelines.repair.on_failure import repair_on_failure
from readmodel_pipelines.settings import Settings

YEAR_ONE = DatetimeMS(ZERO_TIME_MS)
"""Go's zero time, the timestamp in the metadata of most events."""

YEAR_ONE_TEXT = "0001-01-01T00:00:00Z"

_NO_TRANSACTIONS = 20


@dataclass(frozen=True, slots=True)
class NewEvent:
    """One event to append: its type, its own fields, and its origin if known.

    `traces` may hold user_id, correlation_id, causation_id, ip_address and user_agent. DATA_CONTRACT.md, «Events»,
    describes the stored form.
    """

    event_type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    traces: Mapping[str, str] = field(default_factory=dict)

    def stored(self, aggregate_id: str, aggregate_type: str, version: int, now: datetime) -> Document:
        """The document for the event store, with `aggregate_type` in its stored spelling; `now` has a time zone."""
        envelope = {
            "event_type": self.event_type,
            "aggregate_id": aggregate_id,
            "aggregate_type": aggregate_type,
            "occurred_at": now,
            "version": version,
            "metadata": {"timestamp": YEAR_ONE_TEXT, **self.traces},
        }
        return {
            "_id": ObjectId(),
            "aggregate_id": aggregate_id,
            "aggregate_type": aggregate_type,
            "event_type": self.event_type,
            "version": version,
            "data": _through_json({**self.data, **envelope}),
            "metadata": {"timestamp": YEAR_ONE, "correlation_id": "", **self.traces},
            "occurred_at": now,
            "created_at": now,
        }


@dataclass(frozen=True, slots=True)
class Saved:
    """The result of `save`: the stream's new version, and whether its read models are up to date or queued."""

    version: int
    projected: bool


class EventRepository:
    """Saves events of one application. `project` updates the read models of an aggregate, given its id.

    By default this is the project's own projector, which writes only differences.
    """

    def __init__(
        self, database: Database, settings: Settings, *, project: Callable[[str], object] | None = None
    ) -> None:
        self._store = Store(ours(database), settings, projections_for(settings))
        self._queue = RepairQueue(database, settings)
        self._folds: dict[str, Fold[Any]] = {item.fold.aggregate_type: item.fold for item in self._store.projections}
        self._project = project

    def save(
        self, aggregate_id: str, aggregate_type: str, events: Sequence[NewEvent], *, expected_version: int
    ) -> Saved:
        """Append all of these events or none, then update the read models made from the stream.

        `aggregate_type` is that of the stream. `expected_version` is the version on which the decision was based, 0 for
        a new stream. The event store's unique index on (aggregate_id, version) lets only one of two writers append. The
        stream is read before the append, and again for a read model that the events do not change.

        Raises:
            UsageError: there is no such stream, version or event; nothing was saved.
            EventRefused: the stream is malformed, or would be; nothing was saved.
            ConcurrencyConflict: the stream is not at that version; nothing was saved.
            RepairNotQueued: the events are saved, the read models are not up to date, and no repair is queued.
        """
        fold = self._check(aggregate_id, aggregate_type, events, expected_version)
        now = datetime.now(UTC)
        try:
            documents = [
                event.stored(aggregate_id, fold.stored_as[0], version, now)
                for version, event in enumerate(events, expected_version + 1)
            ]
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise EventRefused(
                f"The events cannot be stored: {error}; nothing was saved.",
                hint="Use a dict of texts, numbers, bools, datetimes, None, and lists and dicts of them.",
            ) from error
        made_from_it = [item for item in self._store.projections if item.fold.aggregate_type == fold.aggregate_type]
        append_check = AppendCheck(self._store.of(made_from_it), aggregate_id, documents)
        last = append_check.last.get("version", 0)
        if last != expected_version:
            raise _conflict(aggregate_id, expected_version, f"it is at {last}")
        append_check.refuse_malformed()
        reached(Moment.APPEND, aggregate_id=aggregate_id)
        self._append(aggregate_id, documents, expected_version, append_check.last.get("_id"))
        with repair_on_failure(self._queue, aggregate_id, fold.aggregate_type) as update:
            if self._project is None:
                append_check.bring_in_line()
            else:
                self._project(aggregate_id)
        return Saved(expected_version + len(events), projected=not update.failed)

    def _check(
        self, aggregate_id: str, aggregate_type: str, events: Sequence[NewEvent], expected_version: int
    ) -> Fold[Any]:
        fold = self._folds.get(aggregate_type) if isinstance(aggregate_type, str) else None
        if fold is None:
            raise UsageError(
                f"There are no {aggregate_type!r} streams.", hint=f"Give one of: {', '.join(self._folds)}."
            )
        if not is_aggregate_id(aggregate_id):
            raise UsageError(f"{aggregate_id!r} is no aggregate id.", hint="Give a UUID in lower case with hyphens.")
        if type(expected_version) is not int or expected_version < 0:
            raise UsageError(
                f"{expected_version!r} is no version of a stream.",
                hint="Give the version on which the decision was based, or 0 for a new stream.",
            )
        types = [event.event_type for event in events]
        unknown = sorted(str(item) for item in types if not isinstance(item, str) or item not in fold.events)
        if unknown or not events:
            what = f"{', '.join(unknown)} in a {aggregate_type} stream" if unknown else "no event"
            raise EventRefused(f"There is nothing to append: {what}.", hint="DATA_CONTRACT.md lists the event types.")
        return fold

    def _append(self, aggregate_id: str, documents: Sequence[Document], expected_version: int, behind: Any) -> None:
        """Append them if the stream ends with the event `behind`; None for a new stream."""
        events, database = self._store.events, self._store.database

        def append(session: ClientSession) -> None:
            found = events.find_one(
                {"aggregate_id": aggregate_id}, {"version": 1}, sort=[("version", -1)], session=session
            )
            last = found or {"_id": None, "version": 0}
            if last["_id"] != behind:
                raise _conflict(aggregate_id, expected_version, f"it is at {last.get('version')}")
            events.insert_many(documents, session=session)

        try:
            with database.client.start_session() as session:
                session.with_transaction(
                    append,
                    read_concern=database.read_concern,
                    # The caller's database may have a weaker write concern, and a read model would hold events that are
                    # rolled back.
                    write_concern=MAJORITY,
                    read_preference=database.read_preference,
                )
        except OperationFailure as error:
            of_documents = (error.details or {}).get("writeErrors", ())
            codes = {error.code, *(item.get("code") for item in of_documents)}
            if DUPLICATE_KEY in codes:
                raise _conflict(aggregate_id, expected_version, "another writer appended first") from None
            if codes & UNFIT:
                why = "; ".join(str(item.get("errmsg")) for item in of_documents) or str(error)
                raise EventRefused(
                    f"MongoDB refuses the event for {aggregate_id}: {why[:300]}. Nothing was saved.",
                    hint="Correct the event, or the validator of the collection.",
                ) from None
            if error.code == _NO_TRANSACTIONS:
                raise ReadModelError(
                    "Events are saved in a transaction, and this MongoDB is a standalone server. Nothing was saved.",
                    hint="Run it as a replica set; one member is enough.",
                ) from None
            raise


def _conflict(aggregate_id: str, expected: int, why: str) -> ConcurrencyConflict:
    return ConcurrencyConflict(
        f"The stream of {aggregate_id} is not at version {expected}: {why}. Nothing was saved.",
        hint="Read the aggregate again, decide again, and save again.",
    )


def _through_json(value: Any) -> Any:
    """The value after the application's way through JSON: every number a double, every time a text."""
    if isinstance(value, Mapping):
        return {name: _through_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_through_json(item) for item in value]
    if isinstance(value, datetime):
        return _time_text(value)
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _time_text(moment: datetime) -> str:
    """RFC 3339 with four digits of the year, to the microsecond; without a zone it is in UTC."""
    try:
        in_utc = moment.astimezone(UTC) if moment.utcoffset() is not None else moment
    except OverflowError:
        # In UTC it lies before the year 1, or after 9999.
        return moment.isoformat(timespec="microseconds")
    return f"{in_utc.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
