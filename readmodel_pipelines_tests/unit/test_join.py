"""The merge join of streams and documents against a plain dictionary of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import bson
import pytest
from bson import Int64
from hypothesis import given, settings
from hypothesis import strategies as st

from readmodel_pipelines.errors import OutOfOrder
from readmodel_pipelines.events.stream import Malformed, Reason, Stream
from readmodel_pipelines.projections.chat import CHAT_FOLD
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.join import Lane, MergeJoin, stored_size
from readmodel_pipelines.reconcile.outcome import Counts, Outcome, Verdict, Why
from readmodel_pipelines.reconcile.ports import ReadModel
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange
from readmodel_pipelines.reconcile.summary import Summary

BAD = Malformed(Reason.VERSION_GAP, "version 3 follows 1", 3, "event")
TAKEN = Malformed(Reason.KEY_CONFLICT, "two claim one key", 1, "event")
UNWANTED = "no document"
NO_MODEL = cast(ReadModel, None)


@dataclass(frozen=True)
class Folded:
    """A folded state as the join knows it."""

    value: Any
    version: int = 3


def wanted(aggregate_id: str, state: Any) -> Document | None:
    """The state is the value of the document, or says that there ought to be none."""
    value = state.value if isinstance(state, Folded) else state
    return None if value == UNWANTED else {"key": aggregate_id, "value": value}


VALUES = Projection(
    name="value", read_model="values", fold=CHAT_FOLD, key="key", owned=("key", "value"), document=wanted
)


def joined(
    streams: list[tuple[str, Any]], documents: list[Document], contested: dict[str, Malformed] | None = None
) -> tuple[list[Verdict], Counts]:
    summary = Summary("verify", "value")
    counts = summary.read_models["values"] = Counts()
    verdicts: list[Verdict] = []

    def emit(verdict: Verdict) -> None:
        verdicts.append(verdict)
        summary.note("values", verdict)

    join = MergeJoin(Lane(VALUES, NO_MODEL, counts, emit, contested or {}), documents)
    for aggregate_id, state in streams:
        join.meet(Stream(aggregate_id, state if isinstance(state, Malformed) else Folded(state)))
    join.finish()
    return verdicts, counts


Found = tuple[str, Outcome, str | None, Document | None]


def by_dictionary(
    streams: list[tuple[str, Any]], documents: list[Document], contested: dict[str, Malformed]
) -> tuple[list[Found], int]:
    """What is found and how many are the same, an aggregate after the other, all held at once."""
    states = dict(streams)
    stored: dict[str, list[Document]] = {}
    for document in documents:
        stored.setdefault(document["key"], []).append(document)
    found: list[Found] = []
    same = 0
    for key in sorted(states.keys() | stored.keys()):
        there = stored.get(key, [])
        if key not in states:
            found += [(key, Outcome.ORPHAN, None, document) for document in there]
            continue
        first = there[0] if there else None
        state = states[key]
        if not isinstance(state, Malformed):
            state = contested.get(key, state)
        if isinstance(state, Malformed):
            found.append((key, Outcome.MALFORMED, state.reason, first))
            continue
        if state == UNWANTED:
            right = first is None
            outcome = Outcome.UNEXPECTED
        else:
            right = first is not None and repr(first["value"]) == repr(state) and type(first["value"]) is type(state)
            outcome = Outcome.MISSING if first is None else Outcome.DIFFERENT
        same += right
        if not right:
            found.append((key, outcome, None, first))
        found += [(key, Outcome.UNEXPECTED, Why.DUPLICATE_KEY, document) for document in there[1:]]
    return found, same


keys = st.sampled_from(["", "A", "a", "a\0", "aa", "b", "ä", "\ud7ff", "\ue000", "\uffff", "😀", "\U0010ffff"])
states = st.sampled_from([1, 2, Int64(1), UNWANTED, BAD])


@st.composite
def both_sides(draw: st.DrawFn) -> tuple[list[tuple[str, Any]], list[Document], dict[str, Malformed]]:
    streams = sorted(draw(st.dictionaries(keys, states)).items(), key=lambda item: item[0].encode())
    stored = draw(st.lists(st.tuples(keys, st.sampled_from([1, 2, 1.0, Int64(1), True, None])), max_size=12))
    documents = [{"_id": number, "key": key, "value": value} for number, (key, value) in enumerate(stored)]
    contested = dict.fromkeys(draw(st.sets(keys, max_size=2)), TAKEN)
    return streams, sorted(documents, key=lambda document: document["key"].encode()), contested


@settings(max_examples=300)
@given(both_sides())
def test_the_join_finds_what_a_dictionary_finds(
    sides: tuple[list[tuple[str, Any]], list[Document], dict[str, Malformed]],
) -> None:
    streams, documents, contested = sides
    verdicts, counts = joined(streams, documents, contested)
    found, same = by_dictionary(streams, documents, contested)
    assert [(item.aggregate_id, item.outcome, item.reason, item.actual) for item in verdicts] == found
    assert counts.same == same
    assert counts.checked == counts.same + counts.discrepancies == same + len(found)


def test_documents_of_malformed_streams_are_met_where_ids_are_not_utf8() -> None:
    ids = [raw.decode(errors="surrogateescape") for raw in (b"\xee\x80\x80", b"\xf0", b"\xff")]
    streams = [(key, BAD) for key in ids[1:]]
    documents = [{"_id": key, "key": key, "value": 1} for key in ids]
    verdicts, counts = joined(streams, documents)
    assert [(item.aggregate_id, item.outcome) for item in verdicts] == [
        (ids[0], Outcome.ORPHAN),
        (ids[1], Outcome.MALFORMED),
        (ids[2], Outcome.MALFORMED),
    ]
    assert counts.checked == 3


def test_a_verdict_has_what_a_sink_needs() -> None:
    document = {"_id": 7, "key": "a", "value": 1}
    wanted = {"key": "a", "value": 2}
    size = len(bson.encode(wanted))
    assert joined([("a", 2)], [document])[0] == [
        Verdict("a", Outcome.DIFFERENT, wanted, document, version=3, size=size)
    ]
    assert joined([("a", 2)], [])[0] == [Verdict("a", Outcome.MISSING, wanted, None, version=3, size=size)]
    assert joined([], [document])[0] == [Verdict("a", Outcome.ORPHAN, None, document)]
    assert joined([("a", BAD)], [document])[0] == [
        Verdict("a", Outcome.MALFORMED, None, document, Reason.VERSION_GAP, BAD)
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [("\udcff", Reason.BAD_FIELD), (["fine", "\ud800"], Reason.BAD_FIELD), ("x" * 2**24, Reason.DOCUMENT_TOO_LARGE)],
    ids=["not UTF-8", "not UTF-8 in a list", "over 16 MiB"],
)
def test_what_mongodb_cannot_hold_makes_the_stream_malformed(value: Any, reason: Reason) -> None:
    for documents in ([], [{"_id": 7, "key": "a", "value": "old"}, {"_id": 8, "key": "a", "value": "old"}]):
        verdicts, counts = joined([("a", value), ("b", 1)], documents)
        assert [(item.aggregate_id, item.outcome) for item in verdicts] == [
            ("a", Outcome.MALFORMED),
            ("b", Outcome.MISSING),
        ]
        assert (verdicts[0].reason, verdicts[0].expected) == (reason, None)
        assert verdicts[0].actual == (documents[0] if documents else None)
        assert counts.checked == 2


def test_room_is_kept_for_the_id_that_mongodb_adds() -> None:
    overhead = 5 + 1 + len("value\0") + 4 + 1
    assert stored_size({"value": "x" * (2**24 - 64 - overhead)}) == 2**24 - 64
    malformed = stored_size({"value": "x" * (2**24 - 63 - overhead)})
    assert isinstance(malformed, Malformed)
    assert malformed.reason is Reason.DOCUMENT_TOO_LARGE


def test_neither_side_is_read_ahead_by_more_than_one() -> None:
    read: list[str] = []

    def documents() -> Any:
        for key in "abcd":
            read.append(key)
            yield {"_id": key, "key": key, "value": 1}

    join = MergeJoin(Lane(VALUES, NO_MODEL, Counts()), documents())
    join.meet(Stream("a", Folded(1)))
    assert read == ["a", "b"]


@pytest.mark.parametrize(
    ("streams", "documents", "ids", "within"),
    [
        ("abc", "acb", None, EVERYTHING),
        ("acb", "abc", None, EVERYTHING),
        ("ab", "ab", "a", EVERYTHING),
        ("a", "aA", "a", EVERYTHING),
        ("b", "ab", None, IdRange("b", None)),
        ("ab", "b", None, IdRange("b", None)),
        ("ab", "abc", None, IdRange(None, "c")),
        ("abc", "ab", None, IdRange(None, "c")),
        (["\ue000", "\U00010000"], ["\U00010000", "\ue000"], None, EVERYTHING),
        (["\udcff", "\U00010000"], [], None, EVERYTHING),
    ],
    ids=[
        *("a document goes back", "a stream goes back", "a stream that nobody asked for", "a document of another case"),
        *("a document before the range", "a stream before it", "a document behind the range", "a stream behind it"),
        *("by bytes, not as UTF-16 has it", "by bytes, not as Python has surrogates"),
    ],
)
def test_a_key_out_of_its_place_ends_the_pass(
    streams: Sequence[str], documents: Sequence[str], ids: Sequence[str] | None, within: IdRange
) -> None:
    def met() -> None:
        found = [{"_id": key, "key": key, "value": 1} for key in documents]
        join = MergeJoin(Lane(VALUES, NO_MODEL, Counts()), found, ids, within)
        for key in streams:
            join.meet(Stream(key, Folded(1)))
        join.finish()

    with pytest.raises(OutOfOrder):
        met()
