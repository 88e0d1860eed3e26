"""Streams some of whose updates were lost, with known truth: which ones, and what the document is then.

Pure: documents are what the fold comes to without the lost events, as an application leaves them that applies each
event by itself.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from bson import ObjectId

from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.events.stream import Malformed
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.compare import same_document
from readmodel_pipelines.reconcile.diagnosis import Stream
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict
from readmodel_pipelines.reconcile.replay import document_of, without

Events = list[dict[str, Any]]
Chosen = Callable[[Events, Random], set[int]]
"""The versions of a stream whose updates are lost."""


@dataclass(frozen=True)
class Truth:
    """One document that lacks updates, as a verification finds it."""

    verdict: Verdict
    events: Events
    lost: frozenset[int]


def streams(number: int, seed: int, mean_events: int = 20) -> dict[str, Events]:
    made: dict[str, Events] = {}
    for event in chat_events(number, seed=seed, mean_events=mean_events):
        made.setdefault(event["aggregate_id"], []).append(event)
    return made


def tied_streams(number: int, seed: int) -> dict[str, Events]:
    """Short streams of few members, files and titles: most events have another one just like them."""
    random = Random(seed)
    made: dict[str, Events] = {}
    for place in range(number):
        key = f"00000000-0000-4000-8000-{place:012x}"
        created = {"type": random.choice(["discussion", "task"]), "workspace_id": "w", "created_by": "u"}
        content = [("chat.created", created), *(_tied(random) for _ in range(random.randint(2, 11)))]
        made[key] = [
            {"aggregate_id": key, "aggregate_type": "Chat", "version": version, "event_type": kind, "data": data}
            for version, (kind, data) in enumerate(content, 1)
        ]
    return made


def _tied(random: Random) -> tuple[str, dict[str, Any]]:
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("chat.participant_added", {"user_id": random.choice("ab")}),
        ("chat.participant_removed", {"user_id": random.choice("ab")}),
        ("chat.attachment_added", {"file_id": random.choice("fg"), "file_name": "n", "file_size": 1, "mime_type": "m"}),
        ("chat.attachment_removed", {"file_id": random.choice("fg")}),
        ("chat.renamed", {"new_title": random.choice("xy")}),
        ("chat.type_changed", {"new_type": random.choice(["discussion", "bug"]), "title": "x"}),
        ("chat.user_assigned", {"assignee_id": random.choice("ab")}),
        ("chat.deleted", {}),
    ]
    return random.choices(kinds, [6, 5, 3, 3, 2, 0.5, 1, 0.1])[0]


def everything_since(events: Events, random: Random) -> set[int]:
    """The writer died."""
    return set(range(random.randint(1, len(events)) + 1, len(events) + 1))


def one(events: Events, random: Random) -> set[int]:
    return {random.randint(1, len(events))}


def some_of_one_type(events: Events, random: Random) -> set[int]:
    kind = random.choice(events)["event_type"]
    return {event["version"] for event in events if event["event_type"] == kind and random.random() < 0.5}


def one_hour(events: Events, random: Random) -> set[int]:
    """Some in a row, and later ones were applied."""
    first = random.randint(1, len(events))
    return set(range(first, min(len(events), first + random.randint(0, 4)) + 1))


def one_writer(events: Events, random: Random) -> set[int]:
    """One of several that share the work lost all of its own."""
    return {event["version"] for event in events if random.random() < 0.15}


WAYS: dict[str, Chosen] = {
    item.__name__: item for item in (everything_since, one, some_of_one_type, one_hour, one_writer)
}


def stored_without(projection: Projection, key: str, events: Events, lost: Collection[int]) -> Document | None:
    """What is stored when these updates were lost."""
    (state,) = without(events, projection.fold, [lost])
    document = document_of(projection, key, state)
    return {"_id": ObjectId(), **document} if isinstance(document, dict) else None


def verdict_on(projection: Projection, key: str, events: Events, stored: Document | None) -> Verdict | None:
    """What a verification finds; None where it finds nothing."""
    (state,) = without(events, projection.fold, [()])
    assert not isinstance(state, Malformed)
    expected = document_of(projection, key, state)
    assert expected is None or isinstance(expected, dict)
    if stored is None:
        return None if expected is None else Verdict(key, Outcome.MISSING, expected)
    if expected is None:
        return Verdict(key, Outcome.UNEXPECTED, None, stored)
    return None if same_document(expected, stored) else Verdict(key, Outcome.DIFFERENT, expected, stored)


def damaged(projection: Projection, made: dict[str, Events], chosen: Chosen, seed: int) -> Iterator[Truth]:
    """Of these streams those whose documents are wrong without the chosen updates."""
    random = Random(f"{seed} {projection.name}")
    for key, events in made.items():
        lost = chosen(events, random)
        verdict = verdict_on(projection, key, events, stored_without(projection, key, events, lost))
        if verdict is not None:
            yield Truth(verdict, events, frozenset(lost))


def as_read(projection: Projection, events: Iterable[dict[str, Any]]) -> Events:
    """The events with the fields of data that MongoDB is asked for."""
    fields = {name for item in projection.fold.events.values() for name in item.fields}
    return [
        {**event, "data": {name: value for name, value in event["data"].items() if name in fields}} for event in events
    ]


def stream_of(projection: Projection, truth: Truth) -> Stream:
    """The stream of a damaged document, as a diagnosis is given it."""
    events = as_read(projection, truth.events)
    return Stream(projection, truth.verdict.aggregate_id, lambda: events)
