"""Streams as they lie in the event store, folded: for tests that need no database."""

from typing import Any

from bson.datetime_ms import DatetimeMS

from readmodel_pipelines.events.stream import Fold, Malformed, fold_streams

Document = dict[str, Any]
Step = tuple[str, Document]
"""Event type and data."""

ID = "0198c0de-0000-4000-8000-00000000000a"


def stream_of(*steps: Step) -> list[Document]:
    """The events of one stream, each a millisecond after the one before it; the first at 1,001 ms."""
    return [
        {
            "_id": version,
            "aggregate_id": ID,
            "event_type": event_type,
            "version": version,
            "occurred_at": DatetimeMS(1000 + version),
            "data": data,
        }
        for version, (event_type, data) in enumerate(steps, start=1)
    ]


def folded(fold: Fold[Any], *steps: Step) -> Any:
    """The state of one stream, which has to be healthy."""
    (stream,) = fold_streams(stream_of(*steps), fold)
    assert not isinstance(stream.result, Malformed), stream.result
    return stream.result
