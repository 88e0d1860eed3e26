"""Counts are whole, findings are capped, and JSON shows what differs even where only the BSON type does."""

import copy
import json
import pickle
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from bson import Binary, Code, Int64, ObjectId, Regex
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st

from readmodel_pipelines.events.exact import Odd, Repeated
from readmodel_pipelines.events.stream import Malformed, Reason
from readmodel_pipelines.events.values import ZERO_TIME_MS
from readmodel_pipelines.reconcile.compare import ABSENT
from readmodel_pipelines.reconcile.extended_json import json_value
from readmodel_pipelines.reconcile.outcome import ALARMS, Counts, Outcome, Verdict, Why
from readmodel_pipelines.reconcile.summary import Summary, Verb

MODEL = "chats_read_model"
COUNTS = ["checked", "same", "missing", "different", "unexpected", "orphan", "lagging", "malformed", "undecided"]
COUNTS += ["inserted", "replaced", "deleted", "superseded", "failed"]
EVENT = ObjectId("65a000000000000000000001")
BAD = Verdict(
    "m", Outcome.MALFORMED, None, {"_id": 1}, Reason.BAD_FIELD, Malformed(Reason.BAD_FIELD, "why", 3.5, EVENT)
)


def summary(verb: Verb = "verify", max_findings: int = 1000) -> Summary:
    empty = Summary(verb, "chat", max_findings)
    empty.read_models[MODEL] = Counts()
    return empty


def different(expected: Any, actual: Any, aggregate_id: Any = "a") -> Verdict:
    return Verdict(aggregate_id, Outcome.DIFFERENT, {"f": expected}, {"_id": 1, "f": actual})


@given(st.lists(st.sampled_from(ALARMS)), st.integers(0, 5))
def test_counts_are_never_capped_and_findings_are_the_first_of_their_kind(outcomes: list[Outcome], most: int) -> None:
    result = summary(max_findings=most)
    for number, outcome in enumerate(outcomes):
        result.note(MODEL, Verdict(str(number), outcome))
    counts = result.read_models[MODEL]
    assert {name: count for name, count in counts.as_dict().items() if count} == {
        outcome.value: outcomes.count(outcome) for outcome in outcomes
    }
    assert counts.discrepancies == len(outcomes)
    malformed = [str(number) for number, item in enumerate(outcomes) if item is Outcome.MALFORMED]
    others = [str(number) for number, item in enumerate(outcomes) if item is not Outcome.MALFORMED]
    kept = sorted(malformed[:most] + others[:most], key=int)
    assert [finding.aggregate_id for finding in result.findings] == kept


def test_findings_of_one_read_model_or_malformed_streams_leave_room_for_the_others() -> None:
    result = summary(max_findings=2)
    result.read_models["tasks_read_model"] = Counts()
    for name in result.read_models:
        for outcome in (Outcome.DIFFERENT, Outcome.MALFORMED):
            for number in range(3):
                result.note(name, Verdict(str(number), outcome))
    kinds = Counter((item.read_model, item.outcome) for item in result.findings)
    assert sorted(kinds.values()) == [2, 2, 2, 2]


@pytest.mark.parametrize("most", [0, 1, 2, 3, 10, 100])
def test_findings_that_are_shown_are_shared_out_among_the_read_models(most: int) -> None:
    result = summary()
    result.read_models["tasks_read_model"] = Counts()
    for name in result.read_models:
        for number in range(20):
            result.note(name, Verdict(str(number), Outcome.DIFFERENT))
    of_each = Counter(item.read_model for item in result.first_findings(most))
    assert sum(of_each.values()) == min(most, 40)
    assert max(of_each.values(), default=0) - min(of_each.values(), default=0) <= 1 or most == 1


def test_a_long_value_is_shortened_and_told_apart_from_one_that_begins_alike() -> None:
    result, long = summary(), "x" * 100_000
    for end in ("a", "b"):
        result.note(MODEL, Verdict("a", Outcome.DIFFERENT, {"f": f"{long}{end}", "g": 1}, {"_id": 1, "f": "", "g": 2}))
    one, other = (item["fields"] for item in result.as_json()["findings"])
    assert one["g"] == {"expected": 1, "actual": 2}
    assert one["f"]["actual"] == ""
    ours, theirs = (shown["f"]["expected"]["$shortened"] for shown in (one, other))
    assert ours["bytes"] == theirs["bytes"] == 100_001
    assert ours["sha256"] != theirs["sha256"]
    assert len(json.dumps(result.as_json())) < 10_000


@pytest.mark.parametrize(
    "make",
    [
        lambda: "\udcff" * 50_000,
        lambda: Code("x" * 50_000),
        lambda: Regex("x" * 50_000),
        lambda: Binary(b"x" * 50_000),
        lambda: Odd(0x0E, b"\x51\xc3\x00\x00" + b"x" * 50_000 + b"\x00"),
        lambda: Repeated(("x" * 50_000, 1)),
        lambda: [DatetimeMS(2**62)] * 5_000,
        lambda: {"a": [{"b": "x" * 50_000}]},
    ],
    ids=["no UTF-8", "code", "pattern", "bytes", "symbol", "field twice", "dates", "nested"],
)
def test_a_long_value_of_any_type_is_shortened(make: Callable[[], Any]) -> None:
    result = summary()
    result.note(MODEL, different("", make()))
    said = json.dumps(result.as_json())
    assert "$shortened" in said
    assert len(said) < 10_000


def test_two_long_values_are_shown_where_they_part() -> None:
    result, long = summary(), "x" * 100_000
    result.note(MODEL, different(f"{long} ours", f"{long} theirs"))
    ((ours, theirs),) = result.findings[0].fields.values()
    assert ours.part.endswith(' ours"')
    assert theirs.part.endswith(' theirs"')


def test_many_fields_of_a_moderate_length_are_shortened_together() -> None:
    result = summary()
    fields = {f"f{number}": [f"{number} {item}" for item in range(1_000)] for number in range(10)}
    result.note(MODEL, Verdict("a", Outcome.DIFFERENT, fields, {"_id": 1, "f1": 5}))
    assert len(json.dumps(result.as_json())) < 32 * 1024
    shown = result.findings[0].as_json()["fields"].values()
    assert len({pair["expected"]["$shortened"]["sha256"] for pair in shown}) == 10


def test_whatever_a_malformed_stream_holds_its_finding_is_short() -> None:
    result, long = summary(), "x" * 5_000_000
    result.note(MODEL, Verdict("m", Outcome.MALFORMED, malformed=Malformed(Reason.BAD_VERSION, long, long, long)))
    result.fail(MODEL, "m", Why.WRITE_REFUSED, long)
    assert len(json.dumps(result.as_json())) < 10_000


def test_a_finding_names_just_the_fields_that_differ() -> None:
    result = summary()
    expected = {"title": "a", "status": "New", "severity": "Major"}
    result.note(
        MODEL, Verdict("a", Outcome.DIFFERENT, expected, {"_id": 1, "title": "a", "status": "Old", "due_date": None})
    )
    assert result.findings[0].fields == {
        "status": ("New", "Old"),
        "severity": ("Major", ABSENT),
        "due_date": (ABSENT, None),
    }


LACKING = {"_id": 1, "kept": None}
FOUND = [
    BAD,
    *(Verdict("a", outcome) for outcome in (Outcome.LAGGING, Outcome.UNDECIDED, Outcome.ORPHAN)),
    *(Verdict("half \ud83d", Outcome.ORPHAN, None, {"_id": EVENT}, why) for why in Why),
    *(Verdict("a", Outcome.MALFORMED, reason=why, malformed=Malformed(why, "half \ud83d")) for why in Reason),
    Verdict("a", Outcome.MISSING, {"f": None}, version=2**40, size=5),
    Verdict("a", Outcome.UNEXPECTED, None, {"_id": 1, "f": DatetimeMS(ZERO_TIME_MS)}, Why.DUPLICATE_KEY),
    Verdict("a", Outcome.DIFFERENT, {"kept": None, "lacks": 1}, LACKING),
    Verdict({"a": Int64(1)}, Outcome.DIFFERENT, {}, LACKING),
]


@pytest.mark.parametrize("verdict", FOUND, ids=lambda verdict: f"{verdict.outcome} {verdict.reason}")
def test_whatever_is_found_is_the_same_in_another_process(verdict: Verdict) -> None:
    there = pickle.loads(pickle.dumps(verdict))  # noqa: S301 - our own
    told = summary()
    told.note(MODEL, there)
    told.fail(MODEL, verdict.aggregate_id, Why.BUSY, "half \ud83d")
    back = pickle.loads(pickle.dumps(told))  # noqa: S301 - our own
    here = summary()
    here.note(MODEL, verdict)
    here.fail(MODEL, verdict.aggregate_id, Why.BUSY, "half \ud83d")

    assert back.as_json() == here.as_json()
    assert (back.findings, back.differing, back.reasons) == (here.findings, here.differing, here.reasons)
    json.dumps(back.as_json())


@pytest.mark.parametrize(
    ("verdict", "shown"),
    [
        (Verdict("a", Outcome.MISSING, {"title": "a"}), {"outcome": "missing", "reason": None}),
        (
            BAD,
            {"outcome": "malformed", "reason": "bad_field", "detail": "why", "version": 3.5}
            | {"event_id": {"$oid": str(EVENT)}},
        ),
    ],
    ids=["missing", "malformed, with the first offending event"],
)
def test_what_has_no_document_lists_no_fields(verdict: Verdict, shown: dict[str, Any]) -> None:
    result = summary()
    result.note(MODEL, verdict)
    assert result.findings[0].as_json() == {
        "read_model": MODEL,
        "aggregate_id": verdict.aggregate_id,
        "fields": {},
        **shown,
    }


@pytest.mark.parametrize(
    ("expected", "actual", "shown"),
    [
        ("a", "b", ("a", "b")),
        (None, ABSENT, (None, {"$absent": True})),
        (1, 2, (1, 2)),
        (1, Int64(1), ({"$numberInt": "1"}, {"$numberLong": "1"})),
        (1, 1.0, ({"$numberInt": "1"}, {"$numberDouble": "1.0"})),
        (1, True, ({"$numberInt": "1"}, True)),
        ([1], [Int64(1)], ([{"$numberInt": "1"}], [{"$numberLong": "1"}])),
        (1, float("nan"), (1, {"$numberDouble": "NaN"})),
        ("a", ObjectId("65a000000000000000000001"), ("a", {"$oid": "65a000000000000000000001"})),
    ],
    ids=repr,
)
def test_json_tells_expected_and_actual_apart(expected: Any, actual: Any, shown: tuple[Any, Any]) -> None:
    result = summary()
    result.note(MODEL, different(expected, actual))
    fields = json.loads(json.dumps(result.as_json(), allow_nan=False))["findings"][0]["fields"]
    assert repr(fields) == repr({"f": {"expected": shown[0], "actual": shown[1]}})


def test_json_holds_dates_that_python_has_not() -> None:
    early = ZERO_TIME_MS - 18_000_000
    assert json_value(DatetimeMS(early)) == {"$date": {"$numberLong": str(early)}}


@pytest.mark.parametrize(
    "odd",
    [None, 5, Int64(5), float("inf"), ObjectId("6b04ac7488e4dd37f7169d64"), [1, "a"], {"a": DatetimeMS(2**62)}],
    ids=repr,
)
def test_an_aggregate_id_of_any_bson_type_has_a_place_in_json(odd: Any) -> None:
    result = summary()
    result.note(MODEL, Verdict(odd, Outcome.ORPHAN, None, {"_id": 1}, Why.ODD_KEY))
    result.fail(MODEL, odd, Why.KEY_HELD, "held")
    shown = result.as_json()["findings"][0]
    json.dumps(shown, allow_nan=False)
    assert (shown["reason"], shown["detail"]) == ("key_held", "held")


def test_json_has_the_documented_form() -> None:
    result = summary("rebuild")
    result.events, result.seconds = 7, 1.23456
    result.warnings.append("mind this")
    assert result.as_json() == {
        "verb": "rebuild",
        "aggregate_type": "chat",
        "events": 7,
        "seconds": 1.235,
        "read_models": {MODEL: dict.fromkeys(COUNTS, 0)},
        "findings": [],
        "warnings": ["mind this"],
    }


@pytest.mark.parametrize("outcome", [Outcome.LAGGING, Outcome.UNDECIDED])
def test_what_lags_or_is_undecided_is_counted_and_is_no_finding(outcome: Outcome) -> None:
    result = summary("verify")
    result.note(MODEL, Verdict("a", outcome, {"title": "a"}, {"title": "b"}, reason="moment"))
    assert (result.ok, result.findings, getattr(result.read_models[MODEL], outcome.value)) == (True, [], 1)
    assert (result.differing[MODEL], result.reasons[MODEL]) == ({}, {})


@pytest.mark.parametrize("max_findings", [0, 1000])
@pytest.mark.parametrize("outcome", ALARMS)
def test_verify_is_well_only_when_nothing_was_found_be_it_told_or_not(outcome: Outcome, max_findings: int) -> None:
    result = summary("verify", max_findings)
    assert result.ok
    result.note(MODEL, Verdict("a", outcome))
    assert (result.ok, len(result.findings)) == (False, min(max_findings, 1))


@pytest.mark.parametrize("verb", ["rebuild", "dry_run"])
def test_a_rebuild_is_well_when_it_mended_everything_and_met_no_malformed_stream(verb: Verb) -> None:
    result = summary(verb)
    for outcome in (Outcome.MISSING, Outcome.DIFFERENT, Outcome.UNEXPECTED, Outcome.ORPHAN):
        result.note(MODEL, Verdict("a", outcome))
    result.read_models[MODEL].superseded = 3
    assert result.ok
    failed = copy.deepcopy(result)
    failed.fail(MODEL, "a", Why.BUSY)
    result.note(MODEL, BAD)
    assert (failed.ok, result.ok) == (False, False)


def test_a_failure_is_written_on_the_finding_of_its_own_read_model() -> None:
    result = summary("rebuild")
    result.read_models["tasks_read_model"] = Counts()
    result.note(MODEL, different(1, 2))
    result.note("tasks_read_model", different(1, 2))
    result.fail("tasks_read_model", "a", Why.BUSY, "too busy")
    assert [(finding.reason, finding.detail) for finding in result.findings] == [(None, ""), ("busy", "too busy")]
    assert (result.read_models[MODEL].failed, result.read_models["tasks_read_model"].failed) == (0, 1)


def test_a_failure_without_a_finding_is_counted() -> None:
    result = summary("rebuild", max_findings=0)
    result.note(MODEL, different(1, 2))
    result.fail(MODEL, "a", Why.BUSY)
    assert result.read_models[MODEL].failed == 1
