"""The history of one aggregate: each event of its stream, compared with the stored documents. Writes nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bson import DatetimeMS

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.events.stream import Malformed
from readmodel_pipelines.events.values import Event
from readmodel_pipelines.history.steps import Replay, SetBy, Step
from readmodel_pipelines.lanes import contested
from readmodel_pipelines.mongo.aggregate_ids import checked_id, not_found
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.read_model import ReadModelCollection
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.mongo.verb import verb
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.projections.registry import by_fold, choose_projections
from readmodel_pipelines.reconcile.finding import Finding, finding_of
from readmodel_pipelines.reconcile.join import Lane, MergeJoin
from readmodel_pipelines.reconcile.outcome import Counts, Outcome, Verdict
from readmodel_pipelines.settings import Settings


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """The last event to show, and one field; by default all events and all fields.

    `at` ends the history before the first event that occurred later. The order is that of versions, whatever the clocks
    say.

    Raises:
        UsageError: the version is negative, or both a version and a time are given.
    """

    at_version: int | None = None
    at: datetime | None = None
    field: str | None = None

    def __post_init__(self) -> None:
        if self.at_version is not None and self.at is not None:
            raise UsageError(
                "Both a version and a time were given, but the history has one end.", hint="Give only one."
            )
        if self.at_version is not None and self.at_version < 0:
            raise UsageError(
                f"Versions begin at 1, and {self.at_version} is none.", hint="Give a version of 0 or more."
            )

    def shows(self, version: int, event: Event) -> bool:
        """Whether the event is still shown."""
        if self.at_version is not None:
            return version <= self.at_version
        occurred = event.get("occurred_at")
        return self.at is None or not isinstance(occurred, DatetimeMS) or int(occurred) <= _milliseconds(self.at)

    @property
    def whole(self) -> bool:
        """Whether all of the stream is shown."""
        return self.at_version is None and self.at is None


@dataclass(slots=True)
class StoredState:
    """One read model in a history.

    `document` is the document of the events up to the last one shown, and `blame` the event that last changed each
    field. `outcome` compares the stored document with the whole stream. `at_version` is the last version whose document
    equals the stored one: 0 before the first event, None if there is no such version. `finding` has the differences.
    """

    document: Document | None
    blame: Mapping[str, SetBy]
    outcome: Outcome
    at_version: int | None
    finding: Finding | None = None


@dataclass(slots=True)
class History:
    """The end of a history: its last event, the state of every read model, and the reason if it ends early.

    `events` counts the stream's intact events, up to `last_version`; `shown` those up to `version`.
    """

    aggregate_id: str
    version: int = 0
    occurred_at: Any = None
    shown: int = 0
    last_version: int = 0
    read_models: dict[str, StoredState] = field(default_factory=dict)
    malformed: Malformed | None = None


@verb
def history(
    database: Database,
    settings: Settings,
    read_models: Sequence[str],
    aggregate_id: str,
    request: HistoryRequest,
    on_step: Callable[[Step], object],
) -> History:
    """Step through the stream of an aggregate, and call `on_step` with each event to show.

    With a `field`, only the events that changed it are passed, with only that change.

    Raises:
        UsageError: the id is no UUID, there is no such read model, or none of them has such a field.
        AggregateNotFound: there is neither an event nor a document.
    """
    store = Store(database, settings, choose_projections(settings, read_models))
    aggregate_id = checked_id(store, aggregate_id)
    _check_field(request.field, store.projections)
    store.check(writes=False)
    told = History(aggregate_id)
    for group in by_fold(store.projections):
        _of_streams(store.of(group), aggregate_id, request, _only(request.field, on_step), told)
    if not told.read_models:
        raise not_found(store, aggregate_id)
    return told


def _of_streams(
    store: Store, aggregate_id: str, request: HistoryRequest, on_step: Callable[[Step], object], told: History
) -> None:
    """The streams of one type; read models without an event and without a document are left out."""
    events, ids = EventStore(store.events), [aggregate_id]
    claims = contested(events, store.projections, ids)
    found: dict[str, list[Verdict]] = {item.read_model: [] for item in store.projections}
    lanes = [
        Lane(
            item,
            ReadModelCollection(store.live(item), item),
            Counts(),
            found[item.read_model].append,
            claims.get(item.read_model, {}),
        )
        for item in store.projections
    ]
    # Before the first event, so that no event is newer than the compared document.
    documents = {lane.projection.read_model: list(lane.model.read(ids)) for lane in lanes}
    stored = {name: next(iter(there), None) for name, there in documents.items()}
    replay = Replay(store.projections, aggregate_id, stored, on_step, request.shows)
    stream = replay.run(events.read(replay.fold, ids), store.settings.allow_malformed)
    for lane in lanes:
        join = MergeJoin(lane, documents[lane.projection.read_model], ids)
        if stream is not None:
            join.meet(replay.result_of(stream, lane.projection))
        join.finish()
    if stream is not None:
        told.version, told.shown = replay.version, told.shown + replay.shown
        told.occurred_at = None if replay.event is None else replay.event.get("occurred_at")
        told.last_version = replay.last_version
        told.malformed = stream.result if isinstance(stream.result, Malformed) else None
    for lane in lanes:
        name = lane.projection.read_model
        if stream is not None or documents[name]:
            told.read_models[name] = _stored_state(replay, name, found[name], request.field)


def _stored_state(replay: Replay, name: str, found: Sequence[Verdict], only: str | None) -> StoredState:
    position = replay.positions[name]
    document, blame = position.document, position.blame
    if only is not None:
        document = None if document is None else {key: value for key, value in document.items() if key == only}
        blame = {key: by for key, by in blame.items() if key == only}
    # Of several documents with the same key, the first one is compared.
    finding = finding_of(name, found[0]) if found else None
    return StoredState(document, blame, finding.outcome if finding else Outcome.SAME, position.at_version, finding)


def _only(name: str | None, on_step: Callable[[Step], object]) -> Callable[[Step], object]:
    if name is None:
        return on_step

    def of_field(step: Step) -> None:
        changed = {model: {name: pairs[name]} for model, pairs in step.changed.items() if name in pairs}
        if changed:
            on_step(Step(step.version, step.event, changed))

    return of_field


def _check_field(name: str | None, projections: Sequence[Projection]) -> None:
    known = sorted({owned for item in projections for owned in item.owned})
    if name is not None and name not in known:
        raise UsageError(f"No projection has a field {name!r}.", hint=f"Give one of: {', '.join(known)}.")


def moment_of(text: str) -> datetime:
    """Parse an ISO 8601 time or date; without an offset it is UTC.

    Raises:
        UsageError: the text is no time.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(
            f"{text!r} is no time.", hint="Give a time like 2026-11-02T03:05:00Z, 2026-11-02T04:05+01:00 or 2026-11-02."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _milliseconds(moment: datetime) -> int:
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
