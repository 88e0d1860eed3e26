"""A fold names just what it reads: the reader asks MongoDB for nothing else."""

from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS

from readmodel_pipelines.demo.sample_data import chat_events, task_events
from readmodel_pipelines.events.stream import Fold
from readmodel_pipelines.projections.chat import CHAT_FOLD
from readmodel_pipelines.projections.task import TASK_FOLD

FOLDS: dict[str, Fold[Any]] = {"chat": CHAT_FOLD, "task": TASK_FOLD}
EVERY_TYPE = [
    pytest.param(fold, event_type, id=event_type) for fold in FOLDS.values() for event_type in sorted(fold.events)
]
of_every_fold = pytest.mark.parametrize("fold", FOLDS.values(), ids=FOLDS.keys())


class Recorder(dict[str, Any]):
    """A document that remembers which of its fields were asked for."""

    def __init__(self, content: dict[str, Any] | None = None) -> None:
        super().__init__(content or {})
        self.read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.read.add(str(key))
        return super().__contains__(key)

    def __iter__(self) -> Any:
        raise AssertionError("a fold must not go through all fields")

    keys = values = items = __iter__


def sample(fold: Fold[Any], event_type: str) -> dict[str, Any]:
    """The `data` of such an event as the application writes it."""
    events = chat_events(500) if fold is CHAT_FOLD else task_events(500)
    return next(event["data"] for event in events if event["event_type"] == event_type)


@of_every_fold
def test_every_event_type_begins_with_the_prefix(fold: Fold[Any]) -> None:
    assert all(event_type.startswith(fold.prefix) for event_type in fold.events)


@pytest.mark.parametrize(("fold", "event_type"), EVERY_TYPE)
def test_a_fold_reads_the_named_fields_and_only_those(fold: Fold[Any], event_type: str) -> None:
    for data in (Recorder(sample(fold, event_type)), Recorder()):
        envelope = Recorder({"event_type": event_type, "occurred_at": DatetimeMS(0), "data": data})
        fold.events[event_type].apply(fold.start(), envelope)
        assert data.read == set(fold.events[event_type].fields)
        assert envelope.read <= {"data", *fold.envelope}


@of_every_fold
def test_an_envelope_field_that_is_named_is_read_by_some_event(fold: Fold[Any]) -> None:
    read = set()
    for event_type, kind in fold.events.items():
        envelope = Recorder({"event_type": event_type, "data": {}})
        kind.apply(fold.start(), envelope)
        read |= envelope.read - {"data"}
    assert read == set(fold.envelope)
