"""Leases: one full rebuild of a read model at a time, by the server's clock, and nothing written without the lease."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import Code, Decimal128
from bson.datetime_ms import DatetimeMS
from pymongo import MongoClient
from pymongo.errors import AutoReconnect
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from readmodel_pipelines.bookkeeping.held_leases import taken, taken_leases
from readmodel_pipelines.bookkeeping.leases import (
    OF_A_REBUILD,
    Leases,
    break_lease,
    free_leases,
    hold_leases,
    lost_leases,
)
from readmodel_pipelines.errors import LeaseLost, ReadModelBusy
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.mongo.driver import server_time_asked
from readmodel_pipelines.mongo.names import LEASES
from readmodel_pipelines_tests.support.at_a_moment import At, each, raises
from readmodel_pipelines_tests.support.environment import uri_of
from readmodel_pipelines_tests.support.other_writer import OtherWriter
from readmodel_pipelines_tests.support.scene import BOTH, Scene, found_in
from readmodel_pipelines_tests.support.verbs.command_line import Cli
from readmodel_pipelines_tests.support.verbs.rebuilding import full, taken_over
from readmodel_pipelines_tests.support.waiting import wait_until

CHATS, TASKS = "chats_read_model", "tasks_read_model"


@pytest.fixture
def chat_id(scene: Scene) -> str:
    scene.index()
    chat_id = scene.chat("one")
    scene.build()
    scene.chats.update_many({}, {"$set": {"title": "damaged"}})
    return str(chat_id)


def lease(scene: Scene, read_model: str = CHATS) -> dict[str, Any]:
    return dict(found_in(scene.database[LEASES], {"_id": f"rebuild:{read_model}"}))


def server_time(scene: Scene) -> datetime:
    now: datetime = scene.database.client.admin.command("hello")["localTime"]
    return now.replace(tzinfo=UTC)


def is_free(scene: Scene, read_model: str = CHATS) -> bool:
    expires: datetime = lease(scene, read_model)["expires_at"].replace(tzinfo=UTC)
    return expires <= server_time(scene)


def test_a_second_full_rebuild_is_refused_and_told_who_holds_it(scene: Scene, chat_id: str) -> None:
    with hold_leases(scene.database, [CHATS], 60, "the night shift"):
        before = scene.dump()
        with pytest.raises(ReadModelBusy, match=r"the night shift") as refused:
            scene.rebuild("chat")
        assert CHATS in str(refused.value)
        assert f"{lease(scene)['expires_at']:%H:%M:%S}" in refused.value.hint
        assert scene.dump() == before


def test_a_rebuild_of_both_is_refused_while_one_is_held_and_keeps_neither(scene: Scene, chat_id: str) -> None:
    with hold_leases(scene.database, [TASKS], 60, "the night shift"):
        with pytest.raises(ReadModelBusy):
            scene.rebuild()
        assert is_free(scene)
        assert scene.rebuild("chat").ok


def test_verifying_dry_runs_and_single_aggregates_need_no_lease(scene: Scene, chat_id: str) -> None:
    with hold_leases(scene.database, [CHATS, TASKS], 60, "the night shift"):
        held = lease(scene)
        assert not scene.verify().ok
        assert not scene.verify_one(chat_id).ok
        assert scene.rebuild(dry_run=True).read_models[CHATS].replaced == 1
        assert scene.rebuild_one(chat_id).read_models[CHATS].replaced == 1
        assert lease(scene)["nonce"] == held["nonce"]


def test_an_expired_lease_is_taken_over_with_a_higher_token(scene: Scene, chat_id: str) -> None:
    assert scene.rebuild("chat").ok
    taken_over(scene)
    token = lease(scene)["token"]
    with pytest.raises(ReadModelBusy):
        scene.rebuild("chat")
    scene.database[LEASES].update_one({"_id": f"rebuild:{CHATS}"}, [{"$set": {"expires_at": "$$NOW"}}])

    assert scene.rebuild("chat").ok
    assert lease(scene)["token"] == token + 1
    assert lease(scene)["nonce"] != "theirs"


def test_the_lease_is_free_after_an_error(scene: Scene, chat_id: str, other_writer: OtherWriter) -> None:
    def fails(_: Any) -> None:
        raise RuntimeError("out of luck")

    other_writer.once_before("write", "replace", fails)
    with pytest.raises(RuntimeError, match="out of luck"):
        scene.rebuild("chat")
    assert is_free(scene)
    assert scene.rebuild("chat").ok


def test_expiry_goes_by_the_server_s_clock(scene: Scene, chat_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hour = 3600
    real = time.time
    with hold_leases(scene.database, [CHATS], 60, "the night shift"):
        assert abs((lease(scene)["expires_at"].replace(tzinfo=UTC) - server_time(scene)).total_seconds() - 60) < 50
        monkeypatch.setattr(time, "time", lambda: real() + hour)
        with pytest.raises(ReadModelBusy):
            scene.rebuild("chat")


def test_a_lease_is_renewed_while_its_holder_works(scene: Scene, chat_id: str, other_writer: OtherWriter) -> None:
    def outlives_a_lease(_: Any) -> None:
        until = lease(scene)["expires_at"] + timedelta(seconds=0.6)
        wait_until(lambda: lease(scene)["expires_at"] >= until, every=0.02)

    other_writer.once_before("write", "replace", outlives_a_lease)
    summary = scene.projector("chat", lease_seconds=0.3).rebuild_all()

    assert summary.read_models[CHATS].replaced == 1


@pytest.mark.parametrize("renewable", [True, False])
def test_a_rebuild_that_lost_its_lease_writes_nothing_more(
    scene: Scene, chat_id: str, other_writer: OtherWriter, at: At, lose_leases: Callable[[], None], renewable: bool
) -> None:
    # Its only write loses a race; until it tries again its lease is somebody else's.
    def loses_the_race_and_the_lease(_: Any) -> None:
        scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "another"}})
        lose_leases()

    if not renewable:
        at(Moment.LEASE_RENEWED, each(raises(AutoReconnect("connection reset"))))
    other_writer.once_before("write", "replace", loses_the_race_and_the_lease)
    with pytest.raises(LeaseLost if renewable else (LeaseLost, AutoReconnect)):
        scene.projector("chat").rebuild_all()
    assert found_in(scene.chats, {"chat_id": chat_id})["title"] == "another"
    assert lease(scene)["nonce"] == "theirs", "the new holder's lease is not released"
    assert not is_free(scene)


def test_a_rebuild_that_lost_its_lease_deletes_nothing(
    scene: Scene, chat_id: str, other_writer: OtherWriter, lose_leases: Callable[[], None]
) -> None:
    template = found_in(scene.chats, {}, {"_id": 0})
    scene.chats.insert_one({**template, "chat_id": "00000000-0000-4000-a000-000000000000"})
    other_writer.once_before("write", "replace", lambda _: lose_leases())
    with pytest.raises(LeaseLost):
        scene.projector("chat").rebuild_all()
    assert scene.chats.count_documents({}) == 2


class SlowServer(CommandListener):
    """A clock by which every command takes longer than a lease lasts."""

    now = 0.0

    def started(self, event: CommandStartedEvent) -> None:
        self.now += 70.0

    def succeeded(self, event: CommandSucceededEvent) -> None: ...

    def failed(self, event: CommandFailedEvent) -> None: ...


@pytest.mark.parametrize("renewed", [False, True])
def test_a_lease_is_trusted_no_longer_than_a_slow_server_keeps_it(scene: Scene, renewed: bool) -> None:
    server = SlowServer()
    with MongoClient[Any](uri_of(scene.settings), event_listeners=[server]) as client:
        leases = Leases(client[scene.database.name], 60, clock=lambda: server.now)
        leases.acquire([f"rebuild:{CHATS}"])
        if renewed:
            leases._renew()
        taken_over(scene)
        with pytest.raises(LeaseLost):
            leases.check()


def test_a_dead_owner_frees_its_own_leases_and_nobody_else_s(scene: Scene) -> None:
    dead, alive = (Leases(scene.database, 60, owner=f"Dagster run {number}") for number in (7, 8))
    dead.acquire([f"rebuild:{CHATS}"])
    alive.acquire([f"rebuild:{TASKS}"])
    assert free_leases(scene.database, "Dagster run 7") == 1
    with hold_leases(scene.database, [CHATS], 60):
        alive.check()
    with pytest.raises(ReadModelBusy), hold_leases(scene.database, [TASKS], 60):
        pass


def test_a_lease_that_was_given_back_was_not_lost_and_one_that_ran_out_was(scene: Scene) -> None:
    name = f"rebuild:{CHATS}"
    for _ in range(2):
        with hold_leases(scene.database, [CHATS], 60):
            assert lease(scene)["lost"] == 0
        assert lost_leases(scene.database, 1) == {}
    for lost in (0, 1, 2):
        dying = Leases(scene.database, 60)
        dying.acquire([name])
        assert lease(scene)["lost"] == lost
        dying.abandon()
        assert lost_leases(scene.database, 1) == {name: lost + 1}
    with hold_leases(scene.database, [CHATS], 60):
        assert lease(scene)["lost"] == 3
    with hold_leases(scene.database, [CHATS], 60):
        assert lease(scene)["lost"] == 0


@pytest.mark.parametrize("shared", ["", "a rebuild in slices"])
def test_a_renewal_that_arrives_late_does_not_take_back_what_was_given_back(scene: Scene, shared: str) -> None:
    with hold_leases(scene.database, [CHATS], 60, shared=shared) as held:
        held.give_back()
        assert not held._renew()
        assert is_free(scene)
        with hold_leases(scene.database, [CHATS], 60):
            pass


def clock_stood_ahead(scene: Scene, by: timedelta = timedelta(hours=2)) -> None:
    """The server's clock did, while the leases were written, and was corrected since."""
    scene.database[LEASES].update_many({}, [{"$set": {"expires_at": {"$add": ["$expires_at", by // MS]}}}])


MS = timedelta(milliseconds=1)


def test_a_lease_that_was_given_back_is_free_although_the_clock_stood_ahead(scene: Scene) -> None:
    with hold_leases(scene.database, [CHATS], 60):
        pass
    clock_stood_ahead(scene)
    with hold_leases(scene.database, [CHATS], 60):
        pass


def test_a_dead_holder_locks_for_one_length_of_its_lease_although_the_clock_stood_ahead(scene: Scene) -> None:
    Leases(scene.database, 7).acquire([f"rebuild:{CHATS}"])
    clock_stood_ahead(scene)
    with pytest.raises(ReadModelBusy), hold_leases(scene.database, [CHATS], 60):
        pass
    assert timedelta() < lease(scene)["expires_at"].replace(tzinfo=UTC) - server_time(scene) <= timedelta(seconds=7)


def test_a_known_time_takes_the_free_ones_as_those_are_taken_without_it(scene: Scene) -> None:
    dead, alive = Leases(scene.database, 60), Leases(scene.database, 60)
    dead.acquire(["repair:chat:dead"])
    dead.abandon()
    alive.acquire(["repair:chat:alive"])
    names = [f"repair:chat:{name}" for name in ("alive", "dead", "free", "free too")]
    taken_now = Leases(scene.database, 60, "a run", "an owner")
    leases = taken_now.acquire(names, server_time_asked(scene.database))
    assert sorted(leases) == names
    assert sorted(taken_now.nonces) == names[1:]
    assert [leases[name]["lost"] for name in names] == [0, 1, 0, 0]

    scene.database[LEASES].delete_one({"_id": names[2]})
    Leases(scene.database, 60, "a run", "an owner").acquire([names[2]])
    asked, known = (dict(found_in(scene.database[LEASES], {"_id": name})) for name in names[2:])
    assert list(asked) == list(known)
    assert {name for name in asked if asked[name] != known[name]} == {"_id", "nonce", "acquired_at", "expires_at"}
    assert known["expires_at"] - known["acquired_at"] == timedelta(seconds=60)


def test_a_lease_that_was_taken_by_a_known_time_is_trusted_from_before_that_was_asked_for(scene: Scene) -> None:
    clock = 110.0
    leases = Leases(scene.database, 60, clock=lambda: clock)
    leases.acquire(["repair:chat:one"], replace(server_time_asked(scene.database), asked=100.0))
    assert break_lease(scene.database, "repair:chat:one")
    clock = 159.0
    leases.check()
    clock = 161.0
    with pytest.raises(LeaseLost):
        leases.check()


def test_a_living_holder_keeps_its_lease_when_the_clock_is_corrected(scene: Scene) -> None:
    alive = Leases(scene.database, 60)
    alive.acquire([f"rebuild:{CHATS}"])
    clock_stood_ahead(scene)
    with pytest.raises(ReadModelBusy), hold_leases(scene.database, [CHATS], 60):
        pass
    alive.check()
    assert alive._renew()


def test_a_broken_lease_is_free_at_once_and_lost_for_a_holder_that_lives_after_all(scene: Scene) -> None:
    alive = Leases(scene.database, 60)
    alive.acquire([f"rebuild:{CHATS}"])
    assert break_lease(scene.database, f"rebuild:{CHATS}")
    assert not break_lease(scene.database, f"rebuild:{CHATS}")
    assert not alive._renew()
    with pytest.raises(LeaseLost):
        alive.check()
    with hold_leases(scene.database, [CHATS], 60):
        alive.give_back()
        assert not is_free(scene)


def test_a_holder_is_named_as_asked(scene: Scene, chat_id: str) -> None:
    from readmodel_pipelines.projector import ReadModelProjector

    ReadModelProjector(scene.database, scene.settings, "chat", holder="run $cafe of {dagster}").rebuild_all()
    assert lease(scene)["holder"] == "run $cafe of {dagster}"


def test_leases_go_by_the_collection_so_that_two_settings_do_not_block_each_other(scene: Scene, chat_id: str) -> None:
    with hold_leases(scene.database, [CHATS], 60, "the night shift"):
        other: Callable[..., Any] = scene.projector("chat", chats_collection="chat_read_model").rebuild_all
        assert other().read_models[CHATS].inserted == 1
    assert scene.database["chat_read_model"].count_documents({}) == 1


def test_a_second_try_takes_over_the_lease_of_the_first_one_that_died(scene: Scene, chat_id: str) -> None:
    first = hold_leases(scene.database, ["chats_read_model"], 60, "first try", owner="run 7")
    first.__enter__()
    try:
        with hold_leases(scene.database, ["chats_read_model"], 60, "second try", owner="run 7") as held:
            held.check()
            with pytest.raises(ReadModelBusy):
                scene.rebuild("chat")
    finally:
        first.__exit__(None, None, None)


ODD: Sequence[Any] = (float("nan"), float("inf"), -1, 10**18, Decimal128("NaN"), "text", None, Code("x"), [], {"a": 1})


@pytest.mark.each_once
@pytest.mark.parametrize("odd", [*ODD, DatetimeMS(2**55)], ids=repr)
@pytest.mark.parametrize("field", ["seconds", "token", "lost", "holder", "acquired_at"])
def test_whatever_stands_in_a_lease_that_ran_out_stops_nobody(scene: Scene, field: str, odd: Any) -> None:
    scene.fill(2)
    stored = {"nonce": "x", "expires_at": datetime.now(UTC) - timedelta(hours=1), field: odd}
    scene.database[LEASES].insert_many([{"_id": f"{OF_A_REBUILD}{name}", **stored} for name in BOTH])
    assert len(taken_leases(scene.database)) == 2
    assert full(scene).ok


def test_odd_leases_are_shown_each_on_a_line_and_can_be_broken(scene: Scene, cli: Cli) -> None:
    names = ["a\x1b[2J\nforged: nothing is locked", "far", "z" * 1_000]
    for name in names:
        lease = {"holder": "b\x1b[31m\nx", "nonce": "x", "seconds": float("nan"), "expires_at": DatetimeMS(2**55)}
        scene.database[LEASES].insert_one({"_id": name, **lease})

    shown = cli("leases", "list")

    assert shown.exit_code == 0
    assert "\x1b" not in shown.output
    # A heading, and how many there are.
    assert len(shown.stdout.splitlines()) == 1 + len(names) + 1
    assert cli("doctor").exit_code == 1
    assert cli("leases", "break", "far", "--yes").exit_code == 0
    assert not taken(scene.database, "far")
