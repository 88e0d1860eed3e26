"""The outage, not its rows: findings by cause, event type and time, in JSON and in a sentence."""

from datetime import UTC, datetime, timedelta

import pytest

from readmodel_pipelines.reconcile.cause import Cause, CauseKind, LostEvent
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.outages import Outages, histogram, in_words, sentence
from readmodel_pipelines.reconcile.outcome import Outcome

CHATS = "chats_read_model"
NIGHT = datetime(2026, 11, 2, 3, 2, tzinfo=UTC)


def lost(
    at: datetime | None = NIGHT, kind: CauseKind = CauseKind.BEHIND, event_type: str = "chat.status_changed"
) -> Cause:
    return Cause(kind, lost=(LostEvent(2, event_type, at),), missed=1)


def gathered(*causes: Cause | None) -> Outages:
    outages = Outages()
    for number, cause in enumerate(causes):
        outages.add(CHATS, f"id {number}", cause)
    return outages


def test_the_sentence_names_the_type_the_window_and_whatever_else_there_is() -> None:
    minutes = [NIGHT + timedelta(seconds=number * 9 * 60 / 391) for number in range(392)]
    causes = [lost(at, CauseKind.BEHIND if number % 2 else CauseKind.LOST_UPDATE) for number, at in enumerate(minutes)]
    others = [Cause(CauseKind.FOREIGN_WRITE)] * 6 + [Cause(CauseKind.OLDER_SCHEMA)] + [None] * 2
    groups = sentence(gathered(*causes, *others), CHATS).split("; ")
    assert groups[0] == (
        "392 of 401 documents lost `chat.status_changed` between 03:02 and 03:11 on 2 November 2026 UTC"
    )
    assert [group.split()[0] for group in groups[1:]] == ["6", "1", "2"]


def test_groups_come_with_their_window_and_examples_the_largest_first() -> None:
    outages = gathered(Cause(CauseKind.TYPE_ONLY), *(lost(NIGHT + timedelta(minutes=n)) for n in range(7)))
    assert [item.as_json() for item in outages.largest_first()] == [
        {
            "read_model": CHATS,
            "kind": "behind",
            "event_type": "chat.status_changed",
            "count": 7,
            "first": "2026-11-02T03:02:00.000Z",
            "last": "2026-11-02T03:08:00.000Z",
            "examples": [f"id {number}" for number in range(1, 6)],
        },
        {
            "read_model": CHATS,
            "kind": "type_only",
            "event_type": None,
            "count": 1,
            "first": None,
            "last": None,
            "examples": ["id 0"],
        },
    ]


def test_two_outages_are_two_and_strays_do_not_widen_their_windows() -> None:
    first = [lost(NIGHT + timedelta(seconds=number)) for number in range(50)]
    second = [lost(NIGHT + timedelta(days=4, seconds=number)) for number in range(30)]
    strays = [lost(NIGHT - timedelta(days=day)) for day in (3, 40, 300)]
    found = gathered(*first, *strays, *second).largest_first()
    assert [item.count for item in found] == [50, 30, 3]
    assert [item.first for item in found] == [NIGHT, NIGHT + timedelta(days=4), NIGHT - timedelta(days=300)]
    assert sentence(gathered(*first, *strays), CHATS).startswith(
        "50 of 53 documents lost `chat.status_changed` at 03:02 on 2 November 2026 UTC; 3 lost"
    )


def test_what_is_lost_now_and_then_is_one_group() -> None:
    outages = gathered(*(lost(NIGHT + timedelta(days=day)) for day in range(9)))
    assert [item.count for item in outages.largest_first()] == [9]
    assert "between 03:02 on 2 November 2026 and 03:02 on 10 November 2026 UTC" in sentence(outages, CHATS)


def test_many_types_are_told_as_one_number() -> None:
    types = [f"chat.{name}" for name in "abcde"]
    outages = gathered(*(lost(NIGHT, event_type=name) for place, name in enumerate(types) for _ in range(9 - place)))
    assert sentence(outages, CHATS) == (
        "18 of 35 documents lost updates of 3 event types at 03:02 on 2 November 2026 UTC; "
        "9 lost `chat.a` at 03:02 on 2 November 2026 UTC; 8 lost `chat.b` at 03:02 on 2 November 2026 UTC."
    )


def test_without_a_cause_there_is_nothing_to_say_and_without_a_time_no_window() -> None:
    assert sentence(gathered(None), CHATS) == ""
    assert sentence(gathered(lost(None)), CHATS) == "1 of 1 documents lost `chat.status_changed`."
    never = lost(NIGHT, CauseKind.NEVER_CREATED, "chat.created")
    assert sentence(gathered(never, never), CHATS) == (
        "2 of 2 documents were never created (`chat.created` at 03:02 on 2 November 2026 UTC)."
    )


def test_the_histogram_has_a_few_dozen_steps_at_most() -> None:
    outages = gathered(*(lost(NIGHT + timedelta(hours=hour)) for hour in range(500)), Cause(CauseKind.TYPE_ONLY))
    (shown,) = histogram(outages.largest_first())
    assert (shown["read_model"], shown["event_type"]) == (CHATS, "chat.status_changed")
    assert len(shown["lost"]) <= 60
    assert sum(number for _, number in shown["lost"]) == 500
    assert shown["lost"][0][0] == "2026-11-02T03:02:00.000Z"
    assert histogram(gathered(Cause(CauseKind.TYPE_ONLY)).largest_first()) == []


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (
            Cause(CauseKind.BEHIND, 17, (LostEvent(18, "chat.renamed", NIGHT),), 3),
            "behind at version 17: event 18 `chat.renamed` of 2026-11-02 03:02:00 UTC and 2 more not applied",
        ),
        (
            Cause(CauseKind.LOST_UPDATE, lost=(LostEvent(4, "chat.renamed"),), missed=1, ambiguous=True),
            "lost_update: event 4 `chat.renamed` not applied, or another explanation",
        ),
        (
            Cause(
                CauseKind.LOST_UPDATE, missed=1, ambiguous=True, one_of=(LostEvent(4, "chat.a"), LostEvent(5, "chat.a"))
            ),
            "lost_update: event 4 `chat.a` or 5 `chat.a` not applied",
        ),
        (Cause(CauseKind.OLDER_SCHEMA, fields=("a", "b")), "older_schema (a, b)"),
    ],
)
def test_one_cause_in_words(cause: Cause, words: str) -> None:
    assert in_words(cause) == words


def test_a_finding_has_its_cause_in_json_where_it_is_known() -> None:
    assert "cause" not in Finding(CHATS, "a", Outcome.MALFORMED).as_json()
    shown = Finding(CHATS, "a", Outcome.DIFFERENT, cause=lost(None)).as_json()["cause"]
    assert shown == {
        "kind": "behind",
        "lost": [{"version": 2, "event_type": "chat.status_changed", "occurred_at": None}],
        "missed": 1,
    }
