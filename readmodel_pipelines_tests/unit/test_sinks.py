"""What sinks decide without a database: how much may be deleted, what waits, what is given up."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import cast

import pytest

from readmodel_pipelines.projections.chat import CHATS
from readmodel_pipelines.projections.projection import Document
from readmodel_pipelines.reconcile.deletions import Deferred, DeletionLimit, Deletions
from readmodel_pipelines.reconcile.in_place import ATTEMPTS, InPlace
from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.outcome import Counts, Outcome, Verdict, Why
from readmodel_pipelines.reconcile.ports import BATCH, ReadModel, Written
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines_tests.support.recheck import recheck

MODEL = CHATS.read_model


@pytest.mark.parametrize(
    ("share", "documents", "most"),
    [(0.05, 0, 3), (0.05, 60, 3), (0.05, 80, 4), (0.05, 10_000, 500), (0.0, 10_000, 0), (1.0, 10_000, 10_000)],
)
def test_deletions_are_limited_to_a_share_but_for_a_few(share: float, documents: int, most: int) -> None:
    limit = DeletionLimit(share)
    assert (limit.allows(most, documents), limit.allows(most + 1, documents)) == (True, False)


def test_who_allows_deletions_is_not_kept_by_what_the_server_estimates() -> None:
    # After a crash it may know of none.
    assert DeletionLimit(None).allows(10**9, 0)


def test_a_refusal_says_how_many_and_what_to_do() -> None:
    said = DeletionLimit(0.05).refusal(MODEL, 1_234, 10_000)
    assert said.startswith("chats_read_model: 1,234 of about 10,000 documents would be deleted, ")
    assert " 500. " in said
    assert "--allow-deletions" in said


SUPERSEDED = Written(
    Counts(superseded=1),
    again=[Verdict("a", Outcome.DIFFERENT, {"chat_id": "a"}, {"_id": "a", "chat_id": "a", "title": "old"})],
)
"""Another writer was faster than a change to the document of `a`."""


class Model:
    """Says that every write was done, or what it is told to say; holds no documents."""

    def __init__(self, *answers: Written, documents: int = 10_000) -> None:
        self.answers = list(answers)
        self.documents = documents
        self.batches: list[list[Verdict]] = []

    def write(self, changes: Sequence[Verdict]) -> Written:
        self.batches.append(list(changes))
        if self.answers:
            return self.answers.pop(0)
        done = Counts(
            inserted=sum(1 for change in changes if change.actual is None),
            replaced=sum(1 for change in changes if change.actual is not None and change.expected is not None),
            deleted=sum(1 for change in changes if change.expected is None),
        )
        return Written(done)

    def holders(self, changes: Sequence[Verdict]) -> list[tuple[Verdict, Document, Sequence[str]]]:
        return []

    def claims(self, changes: Sequence[Verdict]) -> list[list[tuple[Sequence[str], bytes]]]:
        return [[] for _ in changes]

    def count(self) -> int:
        return self.documents


def missing(key: str) -> Verdict:
    return Verdict(key, Outcome.MISSING, {"chat_id": key})


def different(key: str, version: int = 0) -> Verdict:
    actual = {"_id": key, "chat_id": key, "title": "old"}
    return Verdict(key, Outcome.DIFFERENT, {"chat_id": key}, actual, version=version)


def orphan(key: str) -> Verdict:
    return Verdict(key, Outcome.ORPHAN, None, {"_id": key, "chat_id": key})


class Run:
    """A sink over a model, with the verdicts that comparing again would give."""

    def __init__(
        self,
        model: Model,
        limit: DeletionLimit | None,
        *verdicts: Verdict,
        deletions: Deletions = Deletions.AT_ONCE,
        grown: Collection[str] = (),
    ) -> None:
        self.model = model
        self.waiting = Deferred()
        self.summary = Summary("rebuild", "chat")
        self.counts = self.summary.read_models[MODEL] = Counts()
        self.pauses: list[int] = []
        again = recheck(Lane(CHATS, cast(ReadModel, model), self.counts), verdicts, grown)
        self.sink = InPlace(again, self.summary, lambda: None, limit or deletions, self.waiting, self.pauses.append)

    def over(self, *verdicts: Verdict) -> Run:
        for verdict in verdicts:
            self.summary.note(MODEL, verdict)
            self.sink.accept(verdict)
        self.sink.finish()
        return self

    @property
    def written(self) -> tuple[int, int, int, int]:
        return self.counts.inserted, self.counts.replaced, self.counts.deleted, self.counts.failed


def test_a_range_of_a_full_run_leaves_deletions_and_conflicts_to_its_end() -> None:
    model = Model(Written(conflicts={"b": "chat_id"}))
    run = Run(model, None, orphan("a"), deletions=Deletions.PUT_OFF).over(orphan("a"), missing("b"))
    assert [[change.aggregate_id for change in batch] for batch in model.batches] == [["b"]]
    assert [list(run.waiting.batches(kind)) for kind in ("delete", "conflict")] == [[["a"]], [["b"]]]
    assert run.written == (0, 0, 0, 0)


def test_writes_go_in_batches() -> None:
    run = Run(Model(), None).over(*(missing(str(number)) for number in range(2 * BATCH + 1)))
    assert [len(batch) for batch in run.model.batches] == [BATCH, BATCH, 1]
    assert run.counts.inserted == 2 * BATCH + 1


def test_a_document_that_others_change_each_time_is_given_up_as_busy() -> None:
    run = Run(Model(*[SUPERSEDED] * ATTEMPTS), None, different("a")).over(different("a"))
    assert (len(run.model.batches), run.counts.superseded, run.counts.failed) == (ATTEMPTS, ATTEMPTS, 1)
    assert run.summary.findings[0].reason == Why.BUSY
    assert run.pauses == list(range(ATTEMPTS))


@pytest.mark.parametrize("deletions", [DeletionLimit(1.0), Deletions.PUT_OFF])
def test_a_full_run_replaces_no_document_that_was_read_after_its_events_and_is_newer(
    deletions: DeletionLimit | Deletions,
) -> None:
    limit, put_off = (None, deletions) if isinstance(deletions, Deletions) else (deletions, Deletions.AT_ONCE)
    run = Run(Model(), limit, different("c", version=1), deletions=put_off, grown="ac")
    run.over(different("a"), missing("b"), different("c"))
    assert [[change.aggregate_id for change in batch] for batch in run.model.batches] == [["b", "c"]]
    assert run.counts.superseded == 1


def test_a_full_run_does_not_look_again_at_streams_that_end_where_they_did() -> None:
    run = Run(Model(), DeletionLimit(1.0)).over(different("a"), different("b"))
    assert [[change.aggregate_id for change in batch] for batch in run.model.batches] == [["a", "b"]]
    assert run.counts.superseded == 0
