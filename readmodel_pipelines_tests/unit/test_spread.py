"""Work spread over processes: what a worker sends meanwhile and at its end adds up to what it counted."""

from __future__ import annotations

from typing import Any

import pytest

from readmodel_pipelines import spread
from readmodel_pipelines.reconcile.outcome import Counts


def test_what_is_sent_now_and_then_and_at_the_end_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "_SAY_SECONDS", 0.0)
    counts = {"chats_read_model": Counts()}
    sent: list[Any] = []
    counting = spread._Counting(counts, sent.append)
    for events in (100, 250):
        counts["chats_read_model"].add(Counts(checked=10, same=9))
        counting(events)
    counts["chats_read_model"].add(Counts(checked=1, same=1))
    looked: list[Any] = [*sent, counting.since_last(260)]

    assert [item.events for item in looked] == [100, 150, 10]
    total = Counts()
    for item in looked:
        total.add(item.counts["chats_read_model"])
    assert total == Counts(checked=21, same=19)
