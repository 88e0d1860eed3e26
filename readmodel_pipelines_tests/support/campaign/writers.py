"""Writers of a campaign: events come one at a time, to an event handler and to a repository."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument

from readmodel_pipelines.errors import EventRefused, WrongAggregateType
from readmodel_pipelines.mongo.driver import CODEC
from readmodel_pipelines.repair.repository import EventRepository, NewEvent
from readmodel_pipelines_tests.support import oracle, stored_values
from readmodel_pipelines_tests.support.campaign.judge import KEYS
from readmodel_pipelines_tests.support.campaign.trial import Document, Trial
from readmodel_pipelines_tests.support.grammar import Stream
from readmodel_pipelines_tests.support.stored_values import Value


def one_event_at_a_time(trial: Trial, streams: Sequence[Stream]) -> None:
    """An event handler that is told of each event as it is appended leaves what the events so far say."""
    trial.empty()
    projector = trial.projector()
    so_far: dict[tuple[str, Value], list[Document]] = defaultdict(list)
    right: dict[tuple[str, Value], Document | None] = {}
    for stream in streams:
        of, key = (stream.aggregate_type, stream.aggregate_id), stream.aggregate_id
        for number, event in enumerate(stream.events, 1):
            trial.events.insert_one(RawBSONDocument(event))
            decoded = bson.decode(event, CODEC)
            # As in `verbs`.
            with suppress(WrongAggregateType):
                projector.process_event(decoded)
            so_far[of].append(stored_values.document(event))
            for read_model, expected in trial.wanted_of(of, so_far).items():
                if not expected.reason:
                    right[read_model, key] = expected.document
                trial.same(
                    f"process_event of event {number}",
                    read_model,
                    trial.owned(read_model, key),
                    right.get((read_model, key)),
                    key,
                )
    for read_model in KEYS:
        there = {name for name in right if name[0] == read_model and right[name]}
        trial.same("process_event", f"documents in {read_model}", len(trial.stored(read_model)), len(there))


def saved(trial: Trial, streams: Sequence[Stream]) -> None:
    """A repository appends what the contract says, refuses what it does not, and leaves what the events say."""
    trial.empty()
    repository = EventRepository(trial.database, trial.settings)
    chance = Random(trial.seed)
    # Of legacy tasks another one may claim the same key.
    saved_before: dict[tuple[str, Value], Any] = {}
    for stream in streams:
        events = [_new(event, chance) for event in stream.events]
        key, version = stream.aggregate_id, 0
        while events:
            more, events = events[:2], events[chance.choice((1, 2)) :]
            try:
                done = repository.save(key.value, stream.aggregate_type.lower(), more, expected_version=version)
            except EventRefused:
                refused = [stored_values.document(event) for event in _as_stored(stream, more, version)]
            else:
                version, refused = version + len(more), []
                trial.same("save", "version", (done.version, done.projected), (version, True), key)
            stored = [
                stored_values.document(bytes(event.raw)) for event in trial.events.find({"aggregate_id": key.value})
            ]
            trial.same("save", "events", len(stored), version, key)
            of = (stream.aggregate_type, key)
            so_far = {**saved_before, of: stored}
            for read_model, expected in trial.wanted_of(of, so_far).items() if stored else ():
                ours = trial.owned(read_model, key)
                trial.same("save", read_model, (ours, ""), (expected.document, expected.reason), key)
            if refused:
                these = trial.wanted_of(of, {**so_far, of: stored + refused})
                trial.same("save", f"refusal of {more}", True, any(item.reason for item in these.values()), key)
            if of[0] == "Task" and (claiming := [event for event in stored if oracle.claims(event) is not None]):
                saved_before[of] = claiming


JSON_VALUES: Sequence[Any] = (
    "x", "", 5, 7, 1, 0, 1.5, True, None, [], {}, ["a"], {"a": 1}, float("nan"), 2**53, 2**70, "2026-03-01T08:00:00Z",
    datetime(1, 1, 1, tzinfo=UTC), datetime(999, 2, 3, 4, 5, 6, 7, UTC), datetime(2026, 3, 1, 8, 0, 0, 123_999, UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999_900, UTC), datetime(1, 1, 2, tzinfo=timezone(timedelta(hours=5))),
)  # fmt: skip
"""What an application may hand over as a field of an event, and should not always."""


def _new(event: bytes, chance: Random) -> NewEvent:
    """The event as whoever appends it says it, perhaps with a field that is not what it should be."""
    decoded = bson.decode(event)
    data = {name: value for name, value in decoded["data"].items() if name not in ("version", "aggregate_id")}
    if data and chance.random() < 0.1:
        data[chance.choice([*data])] = chance.choice(JSON_VALUES)
    return NewEvent(decoded["event_type"], data)


def _as_stored(stream: Stream, events: Sequence[NewEvent], version: int) -> list[bytes]:
    of = str(stream.aggregate_id.value), stream.aggregate_type
    now = datetime.now(UTC)
    return [bson.encode(item.stored(*of, number, now)) for number, item in enumerate(events, version + 1)]
