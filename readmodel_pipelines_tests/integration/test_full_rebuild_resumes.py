"""A full rebuild that was killed goes on where it was, or begins anew and says why; its states, and who may end it.

The long form of killing, in both strategies, is in `soak/`.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from readmodel_pipelines.bookkeeping.leases import hold_leases
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds, WrongState
from readmodel_pipelines.errors import ReadModelBusy, ReadModelError, UsageError
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.mongo.names import REBUILDS
from readmodel_pipelines.rebuild import RebuildRequest, abort, rebuild
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.ranges import EVERYTHING
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.at_a_moment import killed_at
from readmodel_pipelines_tests.support.scene import Mongo, Scene, found_in
from readmodel_pipelines_tests.support.trials.killed_rebuilds import kill_and_resume
from readmodel_pipelines_tests.support.verbs.command_line import Cli
from readmodel_pipelines_tests.support.verbs.rebuilding import (
    BOTH,
    OTHER_TITLE,
    KilledAfter,
    copies,
    full,
    in_shadow,
    leftovers,
    records,
)


@pytest.mark.each_once
@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
@pytest.mark.parametrize("batches", [1, 4])
def test_a_killed_rebuild_goes_on_there(scene: Scene, killed_after: KilledAfter, strategy: Any, batches: int) -> None:
    scene.fill(30)
    right = scene.everything()
    scene.chats.update_many({}, {"$set": {"title": "damaged"}})
    orphan = {"chat_id": "00000000-0000-4000-8000-00000000dead", "title": "no events"}
    scene.chats.insert_one(dict(orphan))
    killed_after(batches, strategy=strategy)
    assert records(scene)[0]["state"] == "building"
    summary = full(scene, resume=True, strategy=strategy)
    assert summary.ok
    assert scene.everything() == right
    # What the first run did is in the counts, and was not done again.
    counts = summary.read_models["chats_read_model"]
    assert (counts.checked, counts.replaced, counts.orphan, counts.deleted) == (31, 30, 1, 1)
    (record,) = records(scene)
    assert (record["state"], record["runs"]) == ("done", 2)
    assert leftovers(scene) == []


def test_events_from_before_the_kill_are_caught_up_with_by_who_resumes(scene: Scene, killed_after: KilledAfter) -> None:
    chats = scene.fill(30)
    scene.chats.delete_many({})
    killed_after(3)
    # Its document is written already, and nobody projects this event.
    scene.append(chats[0], OTHER_TITLE)
    assert full(scene, resume=True).about["caught_up"] > 0
    assert scene.verify().ok


def test_without_resume_an_unfinished_rebuild_is_dropped_and_told(scene: Scene, killed_after: KilledAfter) -> None:
    scene.fill(12)
    killed_after(1, strategy="shadow")
    first = records(scene)[0]["_id"]
    summary = full(scene)
    assert any(first in warning and "dropped" in warning for warning in summary.warnings)
    assert [item["state"] for item in records(scene)] == ["aborted", "done"]
    assert leftovers(scene) == []


@pytest.mark.parametrize("why", ["schema", "age", "strategy", "collection"])
def test_a_rebuild_that_is_another_starts_anew_and_says_why(scene: Scene, killed_after: KilledAfter, why: str) -> None:
    scene.fill(12)
    killed_after(1)
    ways: dict[str, dict[str, Any]] = {
        "schema": {"schema_versions.chats_read_model": 0},
        "age": {"started_at": datetime.now(UTC) - timedelta(days=8)},
        "collection": {"collections": ["other", *BOTH]},
        "strategy": {},
    }
    scene.database[REBUILDS].update_one({"kind": "rebuild"}, {"$set": {"holder": "x", **ways[why]}})
    summary = full(scene, resume=True, strategy="shadow" if why == "strategy" else "in_place")
    said = " ".join(summary.warnings)
    assert "not resumed" in said
    words = {"schema": "schema versions was", "age": "8.0 days old", "strategy": "strategy was", "collection": "other"}
    assert words[why] in said
    assert scene.verify().ok


def test_a_rebuild_is_aborted_with_its_shadow_but_not_when_it_is_done(scene: Scene, killed_after: KilledAfter) -> None:
    scene.fill(12)
    right = scene.everything()
    killed_after(1, strategy="shadow")
    (record,) = records(scene)
    assert abort(scene.database, scene.settings, record["_id"]).state is RebuildState.ABORTED
    assert leftovers(scene) == []
    assert scene.everything() == right
    assert abort(scene.database, scene.settings, record["_id"]).state is RebuildState.ABORTED, "for what is left of it"
    done = full(scene).about["rebuild"]
    with pytest.raises(WrongState):
        abort(scene.database, scene.settings, done)
    with pytest.raises(UsageError):
        abort(scene.database, scene.settings, "nothing")


def test_a_rebuild_at_work_is_not_aborted(scene: Scene, killed_after: KilledAfter) -> None:
    scene.fill(12)
    killed_after(1)
    with hold_leases(scene.database, list(BOTH), 60, "at work"), pytest.raises(ReadModelBusy):
        abort(scene.database, scene.settings, records(scene)[0]["_id"])
    assert records(scene)[0]["state"] == "building"


def test_no_state_follows_an_end(scene: Scene) -> None:
    rebuilds = Rebuilds(scene.database)
    record = rebuilds.begin("0123456789ab", {"read_models": ["x"], "strategy": "in_place"}, [(1, EVERYTHING)])
    for state in (
        *(RebuildState.FINISHING, RebuildState.SWAPPING, RebuildState.DONE),
        *(RebuildState.ROLLING_BACK, RebuildState.ROLLED_BACK),
    ):
        record = rebuilds.to(record, state)
    for state in set(RebuildState) - {RebuildState.ROLLING_BACK}:
        with pytest.raises(WrongState):
            rebuilds.to(record, state)


def test_the_command_line_lists_shows_resumes_and_aborts(scene: Scene, killed_after: KilledAfter, cli: Cli) -> None:
    assert "no full rebuild yet" in cli("rebuilds", "list").stdout
    scene.fill(12)
    killed_after(1)
    (record,) = records(scene)
    listed = json.loads(cli("rebuilds", "list", "--json").stdout)["rebuilds"]
    assert [(item["_id"], item["state"], item["ranges_done"]) for item in listed] == [(record["_id"], "building", 0)]
    assert record["_id"] in cli("rebuilds", "list").stdout
    shown = cli("rebuilds", "show", record["_id"]).stdout
    assert "left: ids from" in shown
    assert "token" not in shown
    resumed = cli("rebuild-readmodel", "--type", "all", "--all", "--resume", "--json")
    assert resumed.exit_code == 0
    assert json.loads(resumed.stdout)["rebuild"] == record["_id"]
    refused = cli("rebuilds", "abort", record["_id"])
    assert (refused.exit_code, "is done" in refused.stderr) == (2, True)
    for wrong in (["--strategy", "magic"], ["--slice", "5/4"], ["--slice", "x"], ["--dry-run", "--resume"]):
        assert cli("rebuild-readmodel", "--type", "chat", "--all", *wrong).exit_code == 2
    of_one = ["rebuild-readmodel", "--type", "chat", "--id", "00000000-0000-4000-8000-000000000000", "--resume"]
    assert cli(*of_one).exit_code == 2


def test_a_rebuild_whose_process_is_killed_ends_right_and_goes_on(database: Mongo, settings: Settings) -> None:
    kill_and_resume(database, settings, chats=800, kills=1, seed=7, strategy="shadow", rate=4_000)


# Killed around the swap


@pytest.mark.parametrize(("moment", "number"), [(Moment.SWAP, 1), (Moment.SWAP, 2), (Moment.SWAPPED, 2)])
def test_a_rebuild_killed_around_the_swap_is_ended_by_who_resumes(scene: Scene, moment: Moment, number: int) -> None:
    chats = scene.fill(12)
    scene.chats.update_many({}, {"$set": {"title": "damaged"}})
    with killed_at(moment, number):
        in_shadow(scene)
    scene.append(chats[0], OTHER_TITLE)
    scene.database.chats_read_model.update_one({"chat_id": chats[1]}, {"$set": {"late": 1}})
    summary = in_shadow(scene, resume=True)
    assert (summary.ok, summary.about["state"]) == (True, "done")
    assert scene.verify().ok
    assert found_in(scene.chats, {"chat_id": chats[1]})["late"] == 1
    assert copies(scene) == ["readmodel_before_chats_read_model", "readmodel_before_tasks_read_model"]


def test_what_was_killed_around_the_swap_is_ended_first_whatever_is_asked_for(scene: Scene) -> None:
    scene.fill(6)
    with killed_at(Moment.SWAP):
        in_shadow(scene)
    first = found_in(scene.database.readmodel_rebuilds, {"kind": "rebuild"})
    with pytest.raises(ReadModelError, match=first["_id"]):
        in_shadow(scene, "chat")
    summary = rebuild(scene.database, scene.settings, [], RebuildRequest())
    assert (summary.about["rebuild"], summary.about["state"]) == (first["_id"], "done")
    assert any("was finished first" in warning for warning in summary.warnings)
    assert scene.verify().ok
