"""The server's load, from answers made by hand: how far behind a secondary is, and what cannot be looked at."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pymongo.database import Database
from pymongo.errors import AutoReconnect, OperationFailure

from readmodel_pipelines.mongo.pressure import Pressure, delayed_members, lag_seconds

NOW = datetime(2026, 3, 1, 8)  # noqa: DTZ001 - as the driver gives it


class Server:
    """Answers commands, or refuses them, and counts what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def command(self, name: str, **_: Any) -> Any:
        self.asked.append(name)
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def load(self, max_queued: int = 50, max_lag_seconds: float = 10) -> Pressure:
        database = cast("Database[dict[str, Any]]", SimpleNamespace(client=SimpleNamespace(admin=self)))
        return Pressure(database, max_queued=max_queued, max_lag_seconds=max_lag_seconds)


def member(number: int, state: str, behind: float = 0) -> dict[str, Any]:
    return {"_id": number, "stateStr": state, "optimeDate": NOW - timedelta(seconds=behind)}


def lagging(seconds: float) -> list[dict[str, Any]]:
    """A primary, and a secondary so far behind it."""
    return [member(0, "PRIMARY"), member(1, "SECONDARY", seconds)]


def status(*members: Mapping[str, Any]) -> dict[str, Any]:
    return {"members": list(members)}


def queued(number: int) -> dict[str, Any]:
    return {"globalLock": {"currentQueue": {"total": number, "readers": 0, "writers": number}}}


def config(**delays: int) -> dict[str, Any]:
    return {"config": {"members": [{"_id": 0}, {"_id": 1}, {"_id": 2, **delays}]}}


QUIET = {"serverStatus": queued(0), "replSetGetStatus": status(), "replSetGetConfig": config()}


def server(**answers: Any) -> Server:
    return Server(**{**QUIET, **answers})


DENIAL = OperationFailure("not authorized on admin to execute command { a: 1 }", 13, {"errmsg": "not authorized on"})
NO_REPLICATION = OperationFailure("not running with --replSet", 76, {"errmsg": "not running with --replSet"})


@pytest.mark.parametrize(
    ("members", "seconds"),
    [
        ([], 0),
        ([member(0, "PRIMARY")], 0),
        ([*lagging(3), member(2, "SECONDARY", 23)], 23),
        (lagging(-2), 0),
        ([member(0, "PRIMARY"), member(1, "RECOVERING", 99), member(2, "(not reachable/healthy)", 10**9)], 0),
        ([member(0, "PRIMARY"), {"_id": 1, "stateStr": "ARBITER"}, member(2, "SECONDARY", 1)], 1),
        ([member(0, "SECONDARY"), member(1, "SECONDARY", 99)], 0),
    ],
    ids=["none", "alone", "the slowest", "ahead of what the primary told", "down", "arbiter", "no primary"],
)
def test_lag_is_that_of_the_slowest_secondary_behind_the_primary(members: list[Any], seconds: float) -> None:
    assert lag_seconds(status(*members)) == seconds


@pytest.mark.parametrize("option", ["secondaryDelaySecs", "slaveDelay"])
def test_a_secondary_that_is_delayed_on_purpose_holds_nobody_up(option: str) -> None:
    delayed = delayed_members(config(**{option: 3_600}))
    assert delayed == {2}
    assert lag_seconds(status(*lagging(4), member(2, "SECONDARY", 3_600)), delayed) == 4
    assert delayed_members(config(**{option: 0})) == delayed_members({}) == set()


@pytest.mark.parametrize(
    ("queue", "behind", "reason"),
    [
        (87, 0, "87 operations are queued on the server (limit 50)"),
        (0, 23, "a secondary is 23 s behind (limit 10 s)"),
        (50, 10, ""),
    ],
)
def test_a_limit_that_is_passed_and_not_just_reached_is_a_reason_in_words(queue: int, behind: int, reason: str) -> None:
    busy = server(serverStatus=queued(queue), replSetGetStatus=status(*lagging(behind)))
    assert busy.load().reason_to_wait() == reason


def test_a_limit_that_is_off_is_not_looked_at() -> None:
    busy = server(serverStatus=queued(10**6), replSetGetStatus=DENIAL)
    load = busy.load(max_queued=0, max_lag_seconds=0)
    assert (load.reason_to_wait(), load.warning, busy.asked) == ("", "", [])


ON_MONGOS = OperationFailure("x", None, {"errmsg": "replSetGetStatus is not supported through mongos"})
NO_SET = {"replSetGetStatus": NO_REPLICATION, "replSetGetConfig": NO_REPLICATION}
BEHIND = status(*lagging(11))


@pytest.mark.parametrize(
    ("answers", "reason", "warned"),
    [
        (dict.fromkeys(QUIET, DENIAL), "", ["serverStatus: not authorized; ", "rights pacing"]),
        ({"serverStatus": queued(87), "replSetGetStatus": DENIAL}, "87 operations", []),
        ({"serverStatus": DENIAL, "replSetGetStatus": BEHIND}, "a secondary", ["serverStatus"]),
        (NO_SET, "", []),
        (
            {"serverStatus": {"ok": 1}, "replSetGetStatus": ON_MONGOS, "replSetGetConfig": ON_MONGOS},
            "",
            ["not supported through mongos", "serverStatus: a mongos"],
        ),
    ],
    ids=["may not look", "may see the queue", "may see the secondaries", "a server alone", "a mongos"],
)
def test_what_cannot_be_looked_at_is_warned_of_once(answers: dict[str, Any], reason: str, warned: list[str]) -> None:
    asked = server(**answers)
    load = asked.load()
    assert load.warning == ""
    said = [load.reason_to_wait() for _ in range(3)]
    assert [bool(item) for item in said] == [bool(reason)] * 3
    assert said[0].startswith(reason)
    assert [part for part in warned if part not in load.warning] == []
    assert bool(load.warning) is bool(warned)
    again = {name for name in asked.asked if asked.asked.count(name) > 1}
    assert not [name for name in again if isinstance(asked.answers[name], Exception)]


def test_a_server_that_does_not_answer_is_asked_again() -> None:
    gone = server(serverStatus=AutoReconnect("connection closed"))
    load = gone.load()
    assert (load.reason_to_wait(), load.warning) == ("", "")
    gone.answers["serverStatus"] = queued(87)
    assert load.reason_to_wait().startswith("87 operations")
