"""The pipeline over some aggregates: their documents are read before their events, never the other way round."""

from collections.abc import Iterator, Sequence
from typing import Any

from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.events.ids import is_utf8
from readmodel_pipelines.projections.registry import built_in
from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.outcome import Counts
from readmodel_pipelines.reconcile.run import reconcile

EVENTS = list(chat_events(5, seed=2, mean_events=4))
IDS = sorted({event["aggregate_id"] for event in EVENTS})


class Both:
    """An event store and a read model whose documents come one by one, and what was asked of them in which order."""

    events_read = 0

    def __init__(self) -> None:
        self.asked: list[str] = []

    def documents(self, key: str) -> Iterator[dict[str, Any]]:
        for aggregate_id in IDS:
            self.asked.append("document")
            yield {"_id": aggregate_id, key: aggregate_id}

    def read(self, *_: Any) -> Iterator[dict[str, Any]]:
        for event in EVENTS:
            self.asked.append("event")
            yield event


class Model:
    def __init__(self, both: Both, key: str) -> None:
        self._both = both
        self._key = key

    def read(self, _: Any = None) -> Iterator[dict[str, Any]]:
        return self._both.documents(self._key)

    stored = read


def lanes_of(both: Both) -> list[Any]:
    return [Lane(item, Model(both, item.key), Counts()) for item in built_in("chat")]  # type: ignore[arg-type]


def asked(ids: Sequence[str] | None, *, held: bool = True) -> list[str]:
    both = Both()
    lanes = lanes_of(both)
    reconcile(both, lanes, ids=ids, held=held)  # type: ignore[arg-type]
    assert all(lane.counts.checked == len(IDS) for lane in lanes)
    return both.asked


def test_no_document_of_some_aggregates_is_read_after_an_event() -> None:
    assert asked(IDS) == ["document"] * 2 * len(IDS) + ["event"] * len(EVENTS)


def test_documents_that_are_looked_at_again_anyway_are_not_held() -> None:
    assert asked(IDS, held=False) == asked(None)


def test_a_full_pass_holds_neither_side() -> None:
    order = asked(None)
    assert order[:3] == ["document", "document", "event"]
    assert sorted(order) == sorted(asked(IDS))


class EveryStream:
    def __init__(self) -> None:
        self.cursors: list[str] = []

    def due(self) -> bool:
        return True

    def reached(self, aggregate_id: str) -> None:
        self.cursors.append(aggregate_id)


class Undecodable(Both):
    def read(self, *_: Any) -> Iterator[dict[str, Any]]:
        yield {"aggregate_id": " no UTF-8: \udcff", "version": 1}
        yield from super().read()

    def first_event(self, *_: Any) -> None:
        return None


def test_an_id_that_no_query_can_ask_for_is_no_place_to_go_on_from() -> None:
    both, every = Undecodable(), EveryStream()
    reconcile(both, lanes_of(both), checkpoint=every)  # type: ignore[arg-type]
    assert len(every.cursors) == len(IDS)
    assert all(map(is_utf8, every.cursors))
