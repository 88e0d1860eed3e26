"""The doctor's judgements: from facts to ok, warning or problem, with a sentence and what to do."""

from collections.abc import Collection
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from readmodel_pipelines.bookkeeping.held_leases import TakenLease
from readmodel_pipelines.bookkeeping.queue_stats import QueueStats
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord
from readmodel_pipelines.doctor import server, work
from readmodel_pipelines.doctor.check import Check, Diagnosis, Health
from readmodel_pipelines.doctor.configuration import judge_embedded, judge_settings, settings_in_force
from readmodel_pipelines.doctor.queries import Answered, Plan, judge_queries, parse
from readmodel_pipelines.embedded.server import ServerStatus
from readmodel_pipelines.mongo.indexes import Flaw
from readmodel_pipelines.mongo.wanted_indexes import EVENTS, LEASES
from readmodel_pipelines.rebuild_state import RebuildState, Strategy
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.servers import programs

OK, WARNING, PROBLEM = Health.OK, Health.WARNING, Health.PROBLEM
NOW = datetime(2026, 3, 1, 12)  # noqa: DTZ001 - as dates come back from the server


def assert_told(check: Check, state: Health, *found: str, hint: str = "") -> None:
    assert check.state is state, check
    assert [part for part in found if part not in check.found] == [], check
    assert hint in check.hint, check


def ago(**length: float) -> datetime:
    return NOW - timedelta(**length)


# The whole


def test_warnings_alone_are_no_failure_and_a_missing_mongodb_is_more_than_a_problem() -> None:
    well, warned, wrong = (Check("x", state, "") for state in (OK, WARNING, PROBLEM))
    assert (Diagnosis([], [well, warned]).exit_code, Diagnosis([], [well, warned]).state) == (0, WARNING)
    assert (Diagnosis([], [wrong, warned]).exit_code, Diagnosis([], [wrong, warned]).state) == (1, PROBLEM)
    assert Diagnosis([], [wrong], no_mongodb=3).exit_code == 3


# Settings and the embedded server


def test_a_secret_is_no_part_of_the_settings_shown() -> None:
    settings = Settings(mongodb_uri=SecretStr("mongodb://ann:hush@host/?tls=true"), database="shop")
    shown = {item["variable"]: item for item in settings_in_force(settings)}
    assert len(shown) == len(Settings.model_fields)
    assert shown["READMODEL_MONGODB_URI"]["value"] == "mongodb://host/?tls=true"
    assert shown["READMODEL_DATABASE"] == {"variable": "READMODEL_DATABASE", "value": "shop", "from": "environment"}
    assert shown["READMODEL_SLICES"]["from"] == "default"
    assert "hush" not in repr(shown)


def test_a_variable_that_no_setting_has_is_told_with_the_one_that_is_meant_and_without_its_value() -> None:
    environment = {"READMODEL_MONGO_URI": "mongodb://ann:hush@host", "READMODEL_CORPUS": "/x", "HOME": "/"}
    check = judge_settings(Settings(), environment)
    assert_told(check, WARNING, "READMODEL_MONGO_URI (is READMODEL_MONGODB_URI meant?)")
    assert "hush" not in repr(check)
    assert "CORPUS" not in repr(check)
    assert judge_settings(Settings(), {"READMODEL_DATABASE": "x"}).state is OK


def test_a_variable_that_the_environment_and_a_file_set_differently_is_told_without_its_values() -> None:
    told = judge_settings(Settings(), {"READMODEL_DATABASE": "x"}, ["READMODEL_DATABASE"])
    assert_told(told, WARNING, "different values for READMODEL_DATABASE")


@pytest.mark.parametrize(
    ("over", "too_far", "dead"), [(True, False, False), (False, True, False), (False, False, True)]
)
def test_no_lease_is_stale_and_its_holder_at_work_at_once(over: bool, too_far: bool, dead: bool) -> None:
    until = NOW - timedelta(minutes=1) if over else NOW + timedelta(minutes=1)
    lease = TakenLease("chats_read_model", "a process", until, over=over, too_far=too_far)
    assert work.judge_leases([lease], NOW, gone=lambda _: dead).state is WARNING
    assert not lease.is_at_work(lambda _: dead)
    assert TakenLease("chats_read_model", "a process", NOW + timedelta(minutes=1)).is_at_work(lambda _: False)


def test_an_embedded_server_that_does_not_run_is_told_and_so_is_why_it_could_not_be_started() -> None:
    there = ServerStatus(True, "mongodb://x", Path("/data"), Path("/data/s"), 7, "6.0.5")
    away = ServerStatus(False, "mongodb://x", Path("/data"), Path("/data/s"), None, None)
    assert judge_embedded(there, "").state is OK
    assert_told(judge_embedded(away, ""), PROBLEM, hint="readmodel server start")
    assert_told(judge_embedded(away, "It lacks libcurl4."), PROBLEM, "libcurl4")


# The server


@pytest.mark.parametrize(
    ("uri", "hosts", "state", "told"),
    [
        ("mongodb://db.example.com/?tls=true", ["db.example.com"], OK, "; TLS."),
        ("mongodb://db.example.com/?tlsCAFile=%2Fca.pem", ["db.example.com"], OK, "; TLS."),
        ("mongodb+srv://db.example.com/", ["a.example.com"], OK, "; TLS."),
        ("mongodb+srv://db.example.com/?tls=false", ["a.example.com"], WARNING, "no TLS"),
        ("mongodb://db.example.com", ["db.example.com"], WARNING, "no TLS"),
        ("mongodb://127.0.0.1/?x=1", ["127.0.0.1"], OK, "this machine's own"),
        ("mongodb://%2Ftmp%2Fm.sock", ["/tmp/m.sock"], OK, "this machine's own"),  # noqa: S108 - a name alone
        ("mongodb://a,b/?ssl=TRUE&tlsInsecure=true", ["a", "b"], WARNING, "not fully checked"),
    ],
)
def test_a_connection_without_tls_to_elsewhere_is_told(uri: str, hosts: list[str], state: Health, told: str) -> None:
    check = server.judge_connection(uri, hosts, "ann@admin", 0.0042)
    assert_told(check, state, told, "within 5 ms, as ann@admin")


@pytest.mark.parametrize(
    ("version", "state"),
    [
        *((version, PROBLEM) for version in ("3.6.23", "4.4.29", "5.0.4-ent")),
        *((version, OK) for version in ("6.0.0", "6.0.5", "6.0.27", "8.2.0", "8.2.1")),
        *((version, WARNING) for version in ("6.1.0", "7.0.0-rc3", "8.0.4", "8.3.0", "10.0.0")),
    ],
)
def test_an_old_version_is_a_problem_and_a_newer_than_tested_a_warning(version: str, state: Health) -> None:
    check = server.judge_version(version)
    assert_told(check, state, version)
    assert bool(check.hint) is (state is not OK)


def test_it_says_which_versions_of_a_series_were_run_and_between_which_another_lies() -> None:
    assert_told(server.judge_version("6.0.27"), OK, "MongoDB 6.0.27, which is tested")
    assert_told(server.judge_version("6.0.9"), OK, "6.0.5 and 6.0.27 of series 6.0")
    assert_told(server.judge_version("7.0.4"), WARNING, "between 6.0 and 8.2", hint="Verify")
    assert_told(server.judge_version("9.0.0"), WARNING, "newer than 8.2", hint="Verify")


def test_the_versions_that_it_knows_are_those_that_the_tests_get() -> None:
    assert server.TESTED == programs.VERSIONS


def test_the_documents_have_each_verb_on_each_version() -> None:
    document = Path(str(server.__file__)).parents[1] / "docs" / "deploying.md"
    table = document.read_text().partition("## Which MongoDB")[2].partition("## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    assert len(lines) == 6
    assert [line for line in lines if any(line.count(version) < 2 for version in programs.VERSIONS)] == []


@pytest.mark.parametrize(
    ("hello", "state", "told"),
    [
        ({"isWritablePrimary": True}, PROBLEM, "standalone"),
        ({"isWritablePrimary": False, "isreplicaset": True}, PROBLEM, "not initiated"),
        ({"setName": "rs0", "hosts": ["a:1"], "isWritablePrimary": True, "primary": "a:1"}, OK, "1 member"),
        ({"setName": "rs0", "hosts": ["a", "b", "c"], "isWritablePrimary": True, "primary": "a"}, OK, "3 members"),
        ({"setName": "rs0", "hosts": ["a", "b"], "isWritablePrimary": False, "primary": "b"}, PROBLEM, "that is b"),
        ({"setName": "rs0", "hosts": ["a"], "isWritablePrimary": False}, PROBLEM, "nobody"),
        ({"msg": "isdbgrid", "isWritablePrimary": True}, OK, "sharded"),
    ],
)
def test_all_but_a_replica_set_with_a_primary_is_a_problem(hello: dict[str, Any], state: Health, told: str) -> None:
    check = server.judge_topology(hello)
    assert_told(check, state, told)
    assert bool(check.hint) or state is OK


@given(ahead=st.floats(-1e6, 1e6), uncertain=st.floats(0, 10), grace=st.sampled_from([0.0, 1.0, 5.0, 3600.0]))
def test_clocks_that_may_agree_are_no_finding_and_only_beyond_the_grace_time_they_are_a_problem(
    ahead: float, uncertain: float, grace: float
) -> None:
    check = server.judge_clock(ahead, uncertain, grace)
    sure = abs(ahead) - uncertain
    if sure <= 1:
        assert check.state is OK
    else:
        side = "ahead of" if ahead > 0 else "behind"
        assert_told(check, PROBLEM if sure > grace else WARNING, side, hint="READMODEL_GRACE_SECONDS")


DAY = 86_400.0
FRESH = server.History(ago(minutes=10), 600, 600)
FULL = server.History(ago(hours=3), DAY / 8, 30 * DAY)
LONG = server.History(ago(days=3), 3 * DAY, 30 * DAY)


@pytest.mark.parametrize(
    ("history", "needed", "longest", "state", "told"),
    [
        (None, [], 0, OK, "cannot see"),
        (FRESH, [("x", ago(minutes=5))], 3600, OK, "10 min"),
        (LONG, [("x", ago(days=2))], 3600, OK, "3 d"),
        (LONG, [("the last verification of chats", ago(days=4))], 0, WARNING, "not to the last verification of chats"),
        (FULL, [], 0, WARNING, "less than a day"),
        (FULL, [], 2 * 3600, WARNING, "start again"),
    ],
)
def test_a_history_too_short_for_what_goes_on_from_it_is_a_warning(
    history: server.History | None, needed: Any, longest: float, state: Health, told: str
) -> None:
    check = server.judge_history(history, needed, longest)
    assert_told(check, state, told)


# Rights


LACKS = [("insert", "shop.chats"), ("update", "shop.chats"), ("insert", "shop.leases")]


def test_a_right_that_is_missing_is_a_problem_only_of_what_the_user_is_meant_for() -> None:
    lacking: Any = {"read_only": [], "verify": [("insert", "shop.findings")], "dagster": LACKS}
    for_all = server.judge_rights("ann@shop", lacking, "dagster", local=False)
    assert_told(for_all, PROBLEM, "may not insert, update on shop.chats; insert on shop.leases", hint="--for read_only")
    assert "readmodel rights dagster" in for_all.hint
    less = server.judge_rights("ann@shop", lacking, "read_only", local=False)
    assert less.state is OK
    assert any("read_only" in line for line in less.details)
    assert any("verify, dagster" in line for line in less.details)


def test_a_server_that_asks_nobody_to_log_in_is_told_unless_it_is_this_machines_own() -> None:
    assert server.judge_rights("", None, "dagster", local=True).state is OK
    assert server.judge_rights("", None, "dagster", local=False).state is WARNING


# Data


def test_events_that_are_not_there_are_told_with_what_is() -> None:
    other = work.judge_collections("shop", "events", ["chats"], {}, {"orders", "customers"})
    assert_told(other, WARNING, "customers, orders", hint="READMODEL_DATABASE")
    empty = work.judge_collections("shop", "events", ["chats", "tasks"], {"events": 5, "chats": 2}, {"events", "chats"})
    assert_told(empty, WARNING, "tasks is empty")
    assert work.judge_collections("shop", "events", ["chats"], {"events": 5, "chats": 2}, {"events"}).state is OK


def test_a_unique_index_that_is_missing_is_a_problem_and_another_a_warning() -> None:
    unique, versions = Flaw("events", EVENTS[0], "missing"), Flaw("events", EVENTS[1], "missing")
    other, expiry = Flaw("events", EVENTS[0], "other", "plain"), Flaw("leases", LEASES[0], "expiry", "expiry")
    there = {"events", "leases"}
    assert work.judge_indexes([], there).state is OK
    assert work.judge_indexes([unique], set()).state is OK, "a collection that is not there needs none yet"
    for flaws, state in (([unique], PROBLEM), ([versions], WARNING), ([versions, other], PROBLEM), ([expiry], WARNING)):
        assert work.judge_indexes(flaws, there).state is state
    told = work.judge_indexes([unique, versions, other, expiry], there)
    assert told.details[0] == "events: no unique index on aggregate_id, version"
    assert told.details[1] == "events: no index on event_type, occurred_at"
    assert "plain on aggregate_id, version is no " in told.details[2]
    assert "db.getCollection('events').dropIndex('plain')" in told.hint
    assert "Drop" not in work.judge_indexes([unique], there).hint


GOOD = Plan(frozenset({"FETCH", "IXSCAN"}), ("i",))
SCAN = Plan(frozenset({"COLLSCAN", "SORT"}))
SORT = Plan(frozenset({"FETCH", "SORT", "IXSCAN"}), ("i",), arrays=True)
NOTHING = Plan(frozenset({"EOF"}))


@pytest.mark.parametrize(
    ("plans", "state", "told"),
    [
        ([GOOD, NOTHING], OK, []),
        ([NOTHING], OK, []),
        ([GOOD, SCAN], PROBLEM, ["c, q: reads every document and sorts them in memory"]),
        ([SORT], PROBLEM, ["c, q: sorts in memory, after a scan of i (it holds arrays)"]),
    ],
)
def test_a_query_that_reads_everything_or_sorts_is_a_problem(plans: list[Plan], state: Health, told: list[str]) -> None:
    check = judge_queries([Answered("q", "c", plan) for plan in plans])
    assert (check.state, list(check.details)) == (state, told)
    assert ("array" in check.hint) is (SORT in plans)


def test_a_query_that_can_be_left_undone_is_only_warned_of() -> None:
    assert judge_queries([Answered("q", "c", SCAN, optional=True)]).state is WARNING


@pytest.mark.parametrize(
    "nested",
    [
        lambda plan: {"queryPlanner": {"winningPlan": plan}},
        lambda plan: {"queryPlanner": {"winningPlan": {"queryPlan": plan, "slotBasedPlan": {"stages": "COLLSCAN"}}}},
        lambda plan: {"queryPlanner": {"winningPlan": {"stage": "SHARD_MERGE", "shards": [{"winningPlan": plan}]}}},
        lambda plan: {"stages": [{"$cursor": {"queryPlanner": {"winningPlan": plan}}}, {"$group": {"_id": "$x"}}]},
        lambda plan: {"shards": {"s0": {"queryPlanner": {"winningPlan": {"queryPlan": plan}}}}},
    ],
    ids=["classic", "slot based", "sharded", "pipeline", "sharded pipeline"],
)
def test_a_plan_is_read_wherever_the_server_puts_it(nested: Any) -> None:
    scan = {"stage": "IXSCAN", "indexName": "i", "isMultiKey": True, "filter": {"stage": {"$eq": "x"}}}
    explained = nested({"stage": "FETCH", "inputStage": scan, "rejectedPlans": [{"stage": "SORT"}]})
    plan = parse({**explained, "command": {"find": "c", "stage": "COLLSCAN"}})
    assert {"FETCH", "IXSCAN"} <= plan.stages
    assert not plan.stages & {"COLLSCAN", "SORT"}
    assert (plan.indexes, plan.arrays) == (("i",), True)


# Work


LONG_DUE = {"pending": 3, "due": 3, "oldest_pending_seconds": 900.0}


def stats(**numbers: Any) -> QueueStats:
    none = dict.fromkeys(("pending", "processing", "completed", "failed", "other", "due"), 0)
    rest = {"oldest_pending_seconds": 0.0, "repairs_per_minute": 0.0, "dead_letters": {}}
    return QueueStats(**{**none, **rest, **numbers})


@pytest.mark.parametrize(
    ("numbers", "state", "told"),
    [
        ({}, OK, "no dead letter"),
        ({"pending": 3, "due": 3, "oldest_pending_seconds": 20.0}, OK, "3 open tasks, 3 due, the oldest for 20 s"),
        (LONG_DUE, WARNING, "no worker runs"),
        ({**LONG_DUE, "repairs_per_minute": 1.0}, OK, "the oldest for 15 min"),
        ({"pending": 11}, WARNING, "READMODEL_REPAIR_QUEUE_WARNING (10)"),
        ({"pending": 100}, PROBLEM, "full"),
        ({"failed": 2, "dead_letters": {"bad_field": 2}}, PROBLEM, "2 dead letters (2 bad_field)"),
    ],
)
def test_dead_letters_are_a_problem_a_standing_queue_warns(numbers: dict[str, Any], state: Health, told: str) -> None:
    check = work.judge_queue(stats(**numbers), warning=10, limit=100)
    assert_told(check, state, told)


def test_open_findings_are_a_problem_and_a_verification_long_ago_a_warning() -> None:
    wrong = work.judge_findings(
        {"chats": {"different": 2, "missing": 1}, "tasks": {}}, {"chats": NOW, "tasks": NOW}, NOW
    )
    assert (wrong.state, wrong.details) == (PROBLEM, ("chats: 2 different, 1 missing",))
    none: dict[str, dict[str, int]] = {"chats": {}, "tasks": {}}
    assert work.judge_findings(none, {"chats": NOW, "tasks": None}, NOW).state is WARNING
    assert work.judge_findings(none, {"chats": NOW, "tasks": ago(days=9)}, NOW).state is WARNING
    assert work.judge_findings(none, {"chats": NOW, "tasks": ago(days=2)}, NOW).state is OK


def begun(state: RebuildState, *, days: float = 0.1, strategy: Strategy = "in_place") -> RebuildRecord:
    at = ago(days=days)
    return RebuildRecord("0123456789ab", state, strategy, ["chats_read_model"], at, at, {}, names=["chat"])


@pytest.mark.parametrize(
    ("rebuild", "held", "state", "hint"),
    [
        (begun(RebuildState.BUILDING), {"chats_read_model"}, OK, ""),
        (begun(RebuildState.BUILDING), {"tasks_read_model"}, WARNING, "--type chat --all --resume` continues it"),
        (begun(RebuildState.FINISHING, strategy="shadow"), (), WARNING, "--strategy shadow --resume"),
        (begun(RebuildState.BUILDING, days=8), (), WARNING, "too old to be resumed: `readmodel rebuilds abort"),
        (begun(RebuildState.REFUSED), (), WARNING, "shows why it was refused"),
        (begun(RebuildState.SWAPPING, strategy="shadow"), (), PROBLEM, "before another one begins"),
        (begun(RebuildState.SWAPPING, strategy="shadow", days=8), (), PROBLEM, "before another one begins"),
    ],
)
def test_an_unfinished_rebuild_that_nobody_works_on_is_told_with_how_to_go_on(
    rebuild: RebuildRecord, held: Collection[str], state: Health, hint: str
) -> None:
    check = work.judge_rebuilds([rebuild], held, (), NOW, valid_days=7)
    assert_told(check, state, hint=hint)
    assert rebuild.id in check.details[0]
