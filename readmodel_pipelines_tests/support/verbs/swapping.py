"""Something happens to a read model's collection in the middle of being read."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pymongo.cursor import CursorType

from readmodel_pipelines.mongo import scan

WhileRead = Callable[[str, Callable[[], object]], list[str]]


@pytest.fixture
def while_read(monkeypatch: pytest.MonkeyPatch) -> WhileRead:
    """Acts once, when a few documents of a collection are read and more are to come; tells that it did."""
    monkeypatch.setattr(scan, "BATCH_DOCUMENTS", 2)
    monkeypatch.setattr(scan, "_HANDED_ON", 2)
    # Or the server would have sent them all.
    each = SimpleNamespace(EXHAUST=CursorType.NON_TAILABLE, NON_TAILABLE=CursorType.NON_TAILABLE)
    monkeypatch.setattr(scan, "CursorType", each)

    def act_while_read(name: str, act: Callable[[], object]) -> list[str]:
        acted: list[str] = []
        batches_of = scan._batches

        def batches(collection: Any, *query: Any, **form: Any) -> Iterator[Any]:
            for number, batch in enumerate(batches_of(collection, *query, **form)):
                yield batch
                if number == 1 and collection.name == name and not acted:
                    acted.append(name)
                    act()

        monkeypatch.setattr(scan, "_batches", batches)
        return acted

    return act_while_read
