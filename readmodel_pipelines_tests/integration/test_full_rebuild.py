"""A full rebuild: ranges and processes, resume, catch-up with a history or without, slices, pace, states, leftovers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from readmodel_pipelines import spread
from readmodel_pipelines.cli.main import app
from readmodel_pipelines.errors import ReadModelBusy, ReadModelError, UsageError
from readmodel_pipelines.mongo import changes
from readmodel_pipelines.mongo.leases import hold_leases
from readmodel_pipelines.mongo.rebuilds import COLLECTION, Rebuilds, State, WrongState
from readmodel_pipelines.rebuild import Request, Slice, abort, rebuild
from readmodel_pipelines.rebuild.batches import Batches
from readmodel_pipelines.reconcile.pacing import BatchSize
from readmodel_pipelines.reconcile.ranges import EVERYTHING
from readmodel_pipelines.reconcile.summary import Summary

BOTH = ("chats_read_model", "tasks_read_model")
OTHER_TITLE = ("chat.renamed", {"new_title": "Told meanwhile", "old_title": "", "renamed_by": "u"})


def full(scene: Any, *names: str, **options: Any) -> Summary:
    return rebuild(scene.database, scene.settings, names, Request(**options))


def leftovers(scene: Any) -> list[str]:
    """Shadows and keys that a rebuild should not leave behind, and leases that somebody still holds."""
    names = [name for name in scene.database.list_collection_names() if name.startswith("readmodel_shadow_")]
    names += [name for name in ("readmodel_deferred", "readmodel_touched") if scene.database[name].find_one({})]
    held = scene.database.readmodel_leases.find({"expires_at": {"$gt": datetime.now(UTC)}})
    return sorted(names) + [lease["_id"] for lease in held]


def records(scene: Any) -> list[dict[str, Any]]:
    return list(scene.database[COLLECTION].find({"kind": "rebuild"}).sort("started_at"))


class Killed(Exception):
    """Stands for SIGKILL where a process of its own would be too slow."""


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is over after three streams."""
    small = BatchSize(first=3, least=3, most=3)
    monkeypatch.setattr("readmodel_pipelines.rebuild.worker.BatchSize", lambda: small)


@pytest.fixture
def killed_after(monkeypatch: pytest.MonkeyPatch, small_batches: None) -> Any:
    """Lets a rebuild die after so many batches, at most once."""

    def after(batches: int) -> None:
        reached = Batches.reached
        left = [batches]

        def counting(self: Batches, aggregate_id: str) -> None:
            reached(self, aggregate_id)
            left[0] -= 1
            if left[0] == 0:
                raise Killed

        monkeypatch.setattr(Batches, "reached", counting)

    return after


def test_a_full_rebuild_makes_what_the_projector_makes_and_leaves_nothing_behind(scene: Any) -> None:
    scene.fill(40)
    right = scene.everything()
    for collection in (scene.chats, scene.tasks):
        collection.update_many({}, {"$set": {"title": "damaged"}})
    summary = full(scene)
    assert summary.ok
    assert scene.everything() == right
    assert [counts.replaced for counts in summary.read_models.values()] == [40, scene.tasks.count_documents({})]
    assert leftovers(scene) == []
    (record,) = records(scene)
    assert (record["state"], record["schema_versions"]) == ("done", dict.fromkeys(BOTH, 1))
    again = full(scene)
    assert [(item.same, item.replaced) for item in again.read_models.values()] == [(40, 0), (40, 0)]


@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
def test_worker_processes_do_what_one_does(scene: Any, monkeypatch: pytest.MonkeyPatch, strategy: Any) -> None:
    monkeypatch.setattr(spread, "EVENTS_WORTH_A_PROCESS", 100)
    scene.settings = scene.settings.model_copy(update={"workers": 2})
    scene.fill(60)
    right = scene.everything()
    malformed = scene.put((1, "chat.created", {"type": 7}), aggregate_id=right[0].popitem()[0].strip("'")[:-4] + "0000")
    right = scene.everything()
    scene.chats.update_many({}, {"$set": {"title": "damaged"}})
    summary = full(scene, strategy=strategy)
    assert scene.everything() == right
    assert records(scene)[0]["ranges"] > 2
    counts = summary.read_models["chats_read_model"]
    assert (counts.checked, counts.replaced, counts.malformed) == (61, 60, 1)
    assert [item.event_id for item in summary.findings if item.outcome == "malformed"] == malformed * 2
    assert leftovers(scene) == []


@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
@pytest.mark.parametrize("batches", [1, 4])
def test_a_killed_rebuild_goes_on_where_it_was(
    scene: Any, killed_after: Any, strategy: Any, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.fill(30)
    right = scene.everything()
    scene.chats.update_many({}, {"$set": {"title": "damaged"}})
    orphan = {"chat_id": "00000000-0000-4000-8000-00000000dead", "title": "no events"}
    scene.chats.insert_one(dict(orphan))
    killed_after(batches)
    with pytest.raises(Killed):
        full(scene, strategy=strategy)
    assert records(scene)[0]["state"] == "building"
    read: list[Any] = []
    original = changes.Follower.drain
    monkeypatch.setattr(changes.Follower, "drain", lambda self: (read.append(1), original(self))[1])
    summary = full(scene, resume=True, strategy=strategy)
    assert summary.ok
    assert scene.everything() == right
    # What the first run did is in the counts, and was not done again.
    counts = summary.read_models["chats_read_model"]
    assert (counts.checked, counts.replaced, counts.orphan, counts.deleted) == (31, 30, 1, 1)
    (record,) = records(scene)
    assert (record["state"], record["runs"]) == ("done", 2)
    assert leftovers(scene) == []


def test_events_that_came_before_the_kill_are_caught_up_with_by_who_resumes(scene: Any, killed_after: Any) -> None:
    chats = scene.fill(30)
    scene.chats.delete_many({})
    killed_after(3)
    with pytest.raises(Killed):
        full(scene)
    # Its document is written already, and nobody projects this event.
    scene.append(chats[0], OTHER_TITLE)
    assert full(scene, resume=True).about["caught_up"] > 0
    assert scene.verify().ok


def test_without_resume_an_unfinished_rebuild_is_dropped_and_a_warning_says_so(scene: Any, killed_after: Any) -> None:
    scene.fill(12)
    killed_after(1)
    with pytest.raises(Killed):
        full(scene, strategy="shadow")
    first = records(scene)[0]["_id"]
    summary = full(scene)
    assert any(first in warning and "dropped" in warning for warning in summary.warnings)
    assert [item["state"] for item in records(scene)] == ["aborted", "done"]
    assert leftovers(scene) == []


@pytest.mark.parametrize("why", ["schema", "age", "strategy", "collection"])
def test_a_rebuild_that_is_another_one_starts_anew_and_says_why(scene: Any, killed_after: Any, why: str) -> None:
    scene.fill(12)
    killed_after(1)
    with pytest.raises(Killed):
        full(scene)
    changed: dict[str, Any] = {
        "schema": {"schema_versions.chats_read_model": 0},
        "age": {"started_at": datetime.now(UTC) - timedelta(days=8)},
        "collection": {"collections": ["other", *BOTH]},
        "strategy": {},
    }[why]
    scene.database[COLLECTION].update_one({"kind": "rebuild"}, {"$set": {"holder": "x", **changed}})
    summary = full(scene, resume=True, strategy="shadow" if why == "strategy" else "in_place")
    said = " ".join(summary.warnings)
    assert "not resumed" in said
    words = {"schema": "schema versions was", "age": "8.0 days old", "strategy": "strategy was", "collection": "other"}
    assert words[why] in said
    assert scene.verify().ok


def test_an_event_that_nobody_projects_meanwhile_is_caught_up_with(
    scene: Any, monkeypatch: pytest.MonkeyPatch, small_batches: None
) -> None:
    chats = scene.fill(20)
    reached = Batches.reached
    told: list[str] = []

    def appending(self: Batches, aggregate_id: str) -> None:
        reached(self, aggregate_id)
        if not told:
            told.append(chats[0])
            scene.append(chats[0], OTHER_TITLE)

    monkeypatch.setattr(Batches, "reached", appending)
    summary = full(scene)
    assert told
    assert summary.about["caught_up"] >= 1
    assert scene.verify().ok


@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
def test_a_history_that_is_lost_has_everything_looked_at_again(
    scene: Any, monkeypatch: pytest.MonkeyPatch, strategy: Any
) -> None:
    chats = scene.fill(20)
    foreign = scene.chats.find_one({"chat_id": chats[1]})["not_ours"]
    with scene.events.watch() as stream:
        scene.append(chats[0], OTHER_TITLE)
        token = stream.next()["_id"]["_data"]
    # The same event a long time ago, of which the server knows nothing any more.
    of_long_ago = {"_data": token[:2] + "00000001" + token[10:]}
    monkeypatch.setattr("readmodel_pipelines.rebuild.begin.token_of_now", lambda _: of_long_ago)
    summary = full(scene, strategy=strategy)
    assert any("looked at again" in warning for warning in summary.warnings)
    assert summary.ok
    assert scene.verify().ok
    assert scene.chats.find_one({"chat_id": chats[1]})["not_ours"] == foreign
    assert leftovers(scene) == []
    assert summary.read_models["chats_read_model"].checked == 20


def test_a_server_without_history_has_everything_looked_at_twice(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.fill(10)

    def none(_: Any) -> Any:
        raise changes.NoHistory("a standalone server keeps no history of changes")

    monkeypatch.setattr("readmodel_pipelines.rebuild.begin.token_of_now", none)
    summary = full(scene)
    assert any("standalone" in warning for warning in summary.warnings)
    assert records(scene)[0]["passes"] == 2
    assert summary.ok
    with pytest.raises(ReadModelError, match="A shadow needs to follow"):
        full(scene, strategy="shadow")


def test_a_run_killed_before_the_second_look_does_it_all_the_same(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chats = scene.fill(10)

    def none(_: Any) -> Any:
        raise changes.NoHistory("a standalone server keeps no history of changes")

    def dying(*_: Any, **__: Any) -> Any:
        raise Killed

    monkeypatch.setattr("readmodel_pipelines.rebuild.begin.token_of_now", none)
    with monkeypatch.context() as patch:
        again = Rebuilds.again
        patch.setattr(Rebuilds, "again", lambda self, record: (again(self, record), dying()))
        with pytest.raises(Killed):
            full(scene)
    scene.append(chats[0], OTHER_TITLE)
    assert full(scene, resume=True).about["state"] == "done"
    assert records(scene)[0]["passes"] == 2
    assert scene.verify().ok


def test_a_history_that_is_lost_while_it_catches_up_has_everything_looked_at_again(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats = scene.fill(10)
    drain, calls = changes.Follower.drain, [0]

    def losing(self: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            scene.append(chats[0], OTHER_TITLE)
            raise changes.HistoryLost("it is too short")
        return drain(self)

    monkeypatch.setattr(changes.Follower, "drain", losing)
    summary = full(scene)
    assert any("it is too short" in warning for warning in summary.warnings)
    assert scene.verify().ok


# Deletions


@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
def test_too_many_deletions_are_refused_before_any_and_allowed_by_resuming(scene: Any, strategy: Any) -> None:
    scene.fill(10)
    scene.chats.insert_many([{"chat_id": f"{n:08d}-0000-4000-8000-000000000000"} for n in range(101)])
    summary = full(scene, strategy=strategy)
    assert not summary.ok
    assert any("101 of about 111 documents" in warning for warning in summary.warnings)
    assert scene.chats.count_documents({}) == 111
    assert summary.about["state"] == "refused"
    done = full(scene, strategy=strategy, resume=True, allow_deletions=True)
    assert (done.ok, done.about["state"]) == (True, "done")
    assert scene.chats.count_documents({}) == 10
    assert len(records(scene)) == 1
    assert leftovers(scene) == []


def test_events_that_vanish_while_a_shadow_is_built_do_not_empty_the_read_model(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.fill(150)
    finish = Batches.finish

    def vanishing(self: Batches) -> None:
        finish(self)
        scene.events.delete_many({})

    monkeypatch.setattr(Batches, "finish", vanishing)
    summary = full(scene, "chat", strategy="shadow")
    assert (summary.ok, summary.about["state"]) == (False, "refused")
    assert scene.chats.count_documents({}) == 150


def test_a_read_model_that_is_refused_is_not_hidden_by_one_that_is_done(legacy_scene: Any) -> None:
    scene = legacy_scene
    scene.fill(10)
    scene.chats.insert_many([{"chat_id": f"{n:08d}-0000-4000-8000-000000000000"} for n in range(101)])
    summary = full(scene, strategy="shadow")
    assert (summary.ok, summary.about["state"]) == (False, "refused")
    assert summary.read_models["chats_read_model"].deleted == 0
    assert {record["state"] for record in records(scene)} == {"refused", "done"}


# One at a time


def test_a_second_rebuild_of_a_read_model_is_told_who_is_at_work(scene: Any) -> None:
    scene.fill(4)
    with (
        hold_leases(scene.database, ["chats_read_model"], 60, "somebody"),
        pytest.raises(ReadModelBusy, match="somebody"),
    ):
        full(scene, "chat")
    assert records(scene) == []


# Slices


@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
def test_slices_share_one_rebuild_which_the_last_one_finishes(scene: Any, strategy: Any) -> None:
    scene.fill(40)
    right = scene.everything()
    scene.chats.update_many({}, {"$set": {"title": "damaged"}})
    states = []
    for number in (3, 1, 4, 2):
        summary = full(scene, "chat", strategy=strategy, resume=True, slice=Slice(number, 4), campaign="night")
        states.append(summary.about["state"])
    assert states == ["building"] * 3 + ["done"]
    assert scene.everything() == right
    (record,) = records(scene)
    assert record["counts"]["chats_read_model"]["replaced"] == 40
    assert leftovers(scene) == []
    late = full(scene, "chat", strategy=strategy, resume=True, slice=Slice(1, 4), campaign="night")
    assert late.about["state"] == "done"
    assert len(records(scene)) == 1


def test_a_slice_that_failed_is_done_again_and_no_other(scene: Any, killed_after: Any) -> None:
    scene.fill(40)
    scene.chats.delete_many({})
    assert full(scene, "chat", resume=True, slice=Slice(1, 2)).about["state"] == "building"
    killed_after(1)
    with pytest.raises(Killed):
        full(scene, "chat", resume=True, slice=Slice(2, 2))
    summary = full(scene, "chat", resume=True, slice=Slice(2, 2))
    assert (summary.ok, summary.about["state"]) == (True, "done")
    assert summary.read_models["chats_read_model"].inserted == 40
    assert scene.verify("chat").ok


def test_a_slice_does_not_begin_beside_a_rebuild_that_is_at_work(scene: Any) -> None:
    scene.fill(4)
    with (
        hold_leases(scene.database, ["chats_read_model"], 60, "somebody"),
        pytest.raises(ReadModelBusy, match="somebody"),
    ):
        full(scene, "chat", resume=True, slice=Slice(1, 2))


def test_slices_without_aggregates_come_to_the_rebuild_that_is_done(scene: Any) -> None:
    scene.chat("the only one")
    states = [full(scene, "chat", resume=True, slice=Slice(number, 4)).about["state"] for number in (1, 2, 3, 4)]
    assert states == ["done"] * 4
    assert len(records(scene)) == 1
    assert full(scene, "chat", resume=True, slice=Slice(1, 4)).about["state"] == "done"
    assert len(records(scene)) == 2, "the next round is another rebuild"


def test_the_slice_that_finishes_does_again_what_has_to_be(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.fill(20)

    def none(_: Any) -> Any:
        raise changes.NoHistory("a standalone server keeps no history of changes")

    monkeypatch.setattr("readmodel_pipelines.rebuild.begin.token_of_now", none)
    states = [full(scene, "chat", resume=True, slice=Slice(number, 3)).about["state"] for number in (1, 2, 3)]
    assert states == ["building", "building", "done"]
    assert records(scene)[0]["passes"] == 2


# Pace


def test_outside_of_its_window_a_rebuild_stops_cleanly_and_goes_on_in_it(scene: Any) -> None:
    scene.fill(10)
    scene.chats.delete_many({})
    now = datetime.now(UTC)
    closed = f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"
    open_ = f"{now - timedelta(hours=2):%H:%M}-{now + timedelta(hours=2):%H:%M}"
    scene.settings = scene.settings.model_copy(update={"off_peak_window": closed})
    paused = full(scene, off_peak=True)
    assert (paused.ok, paused.about["state"]) == (True, "paused")
    assert scene.chats.count_documents({}) == 0
    scene.settings = scene.settings.model_copy(update={"off_peak_window": open_})
    done = full(scene, off_peak=True, resume=True)
    assert (done.ok, done.about["state"], done.about["rebuild"]) == (True, "done", paused.about["rebuild"])
    assert scene.verify().ok


def test_a_limit_of_events_is_held(scene: Any, small_batches: None) -> None:
    scene.fill(30)
    events = scene.events.count_documents({})
    scene.settings = scene.settings.model_copy(update={"max_events_per_second": float(events)})
    summary = full(scene)
    assert 0.9 < summary.seconds < 3


def test_a_limit_of_documents_counts_what_a_shadow_copies(scene: Any, small_batches: None) -> None:
    scene.fill(30)
    scene.settings = scene.settings.model_copy(update={"max_documents_per_second": 30.0})
    assert 0.9 < full(scene, "chat", strategy="shadow").seconds < 4


# States and verbs


def test_a_rebuild_is_aborted_with_its_shadow_but_not_when_it_is_done(scene: Any, killed_after: Any) -> None:
    scene.fill(12)
    right = scene.everything()
    killed_after(1)
    with pytest.raises(Killed):
        full(scene, strategy="shadow")
    (record,) = records(scene)
    assert abort(scene.database, scene.settings, record["_id"])["state"] == "aborted"
    assert leftovers(scene) == []
    assert scene.everything() == right
    with pytest.raises(WrongState, match="is aborted and cannot become aborted"):
        abort(scene.database, scene.settings, record["_id"])
    done = full(scene).about["rebuild"]
    with pytest.raises(WrongState, match="is done"):
        abort(scene.database, scene.settings, done)
    with pytest.raises(UsageError, match="no rebuild 'nothing'"):
        abort(scene.database, scene.settings, "nothing")


def test_a_rebuild_at_work_is_not_aborted(scene: Any, killed_after: Any) -> None:
    scene.fill(12)
    killed_after(1)
    with pytest.raises(Killed):
        full(scene)
    with hold_leases(scene.database, list(BOTH), 60, "at work"), pytest.raises(ReadModelBusy):
        abort(scene.database, scene.settings, records(scene)[0]["_id"])
    assert records(scene)[0]["state"] == "building"


def test_no_state_follows_an_end(scene: Any) -> None:
    rebuilds = Rebuilds(scene.database)
    record = rebuilds.begin("0123456789ab", {"read_models": ["x"]}, [(1, EVERYTHING)])
    for state in (State.FINISHING, State.SWAPPING, State.DONE, State.ROLLED_BACK):
        record = rebuilds.to(record, state)
    for state in (State.BUILDING, State.FINISHING, State.SWAPPING, State.DONE, State.ABORTED, State.REFUSED):
        with pytest.raises(WrongState, match="rolled_back"):
            rebuilds.to(record, state)


def test_the_command_line_lists_shows_resumes_and_aborts(
    scene: Any, killed_after: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = scene.settings.mongodb_uri.get_secret_value()
    monkeypatch.setenv("READMODEL_MONGODB_URI", uri)
    monkeypatch.setenv("READMODEL_DATABASE", scene.settings.database)
    run = CliRunner().invoke
    assert "no full rebuild yet" in run(app, ["rebuilds", "list"]).stdout
    scene.fill(12)
    killed_after(1)
    with pytest.raises(Killed):
        full(scene)
    (record,) = records(scene)
    listed = json.loads(run(app, ["rebuilds", "list", "--json"]).stdout)["rebuilds"]
    assert [(item["_id"], item["state"], item["ranges_done"]) for item in listed] == [(record["_id"], "building", 0)]
    assert record["_id"] in run(app, ["rebuilds", "list"]).stdout
    shown = run(app, ["rebuilds", "show", record["_id"]]).stdout
    assert "left: ids from" in shown
    assert "token" not in shown
    resumed = run(app, ["rebuild-readmodel", "--type", "all", "--all", "--resume", "--json"])
    assert resumed.exit_code == 0
    assert json.loads(resumed.stdout)["rebuild"] == record["_id"]
    refused = run(app, ["rebuilds", "abort", record["_id"]])
    assert (refused.exit_code, "is done" in refused.stderr) == (2, True)
    for wrong in (["--strategy", "magic"], ["--slice", "5/4"], ["--slice", "x"], ["--dry-run", "--resume"]):
        assert run(app, ["rebuild-readmodel", "--type", "chat", "--all", *wrong]).exit_code == 2
    of_one = ["rebuild-readmodel", "--type", "chat", "--id", "00000000-0000-4000-8000-000000000000", "--resume"]
    assert run(app, of_one).exit_code == 2


def test_a_verification_in_processes_finds_what_one_does(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chats = scene.fill(60)
    scene.chats.update_many({"chat_id": {"$in": chats[::7]}}, {"$set": {"title": 7}})
    scene.tasks.delete_one({})
    scene.chats.insert_one({"chat_id": "00000000-0000-4000-8000-00000000dead"})
    scene.put((2, "chat.renamed", {}), aggregate_id="11111111-0000-4000-8000-000000000000")
    one = scene.verify()
    monkeypatch.setattr(spread, "EVENTS_WORTH_A_PROCESS", 100)
    scene.settings = scene.settings.model_copy(update={"workers": 2})
    two = scene.verify()
    assert two.read_models == one.read_models
    assert two.events == one.events
    assert sorted(map(repr, two.findings)) == sorted(map(repr, one.findings))
