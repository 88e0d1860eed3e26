"""Who sleeps right before one command, and wakes up when others have done its work: sequences that did harm once.

That of every other command is in `test_freezes.py`, and in `soak/`.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from readmodel_pipelines.bookkeeping.kept_keys import EVENTS, Owner, Touched
from readmodel_pipelines.errors import LeaseLost, ReadModelError
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.mongo.changes import NoHistory
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.mongo.names import LEASES, REBUILDS, TOUCHED
from readmodel_pipelines.rebuild import RebuildRequest, abort, begin, rebuild, roll_back
from readmodel_pipelines.rebuild.request import Slice
from readmodel_pipelines_tests.support.at_a_moment import At, killed_at, once
from readmodel_pipelines_tests.support.freezes.freezer import IsIt, asleep, command
from readmodel_pipelines_tests.support.freezes.trial import Freeze, expired, freeze, short_transactions
from readmodel_pipelines_tests.support.scene import Scene, taken_from
from readmodel_pipelines_tests.support.verbs.rebuilding import copies, full, in_shadow, leftovers, records

CHATS = "chats_read_model"
SHADOW, COPY = "readmodel_shadow", "readmodel_before"

SEQUENCES: dict[str, tuple[Freeze, IsIt]] = {
    "it renames what the third builds over the live one": (
        Freeze("shadow", "resumed", third=True),
        command("renameCollection", CHATS),
    ),
    "it swaps in what another run of its slice swapped in": (
        Freeze("slice", "again", third=True),
        command("renameCollection", CHATS),
    ),
    "it goes on with a swap whose shadow is gone": (
        Freeze("slice", "again", third=True),
        command("update", "readmodel_rebuilds", 7),
    ),
    "it notes what was touched": (Freeze("resumed shadow", "resumed", third=False), command("update", TOUCHED)),
    "it forgets what was touched": (Freeze("resumed shadow", "resumed", third=False), command("delete", TOUCHED)),
    "it makes a shadow": (Freeze("shadow", "anew", third=False), command("create", SHADOW)),
    "it makes the indexes of one that was dropped": (
        Freeze("shadow", "anew", third=False),
        command("createIndexes", SHADOW),
    ),
    "it makes a copy": (Freeze("shadow", "resumed", third=True), command("create", COPY)),
    "it fills a copy": (Freeze("shadow", "anew", third=True), command("aggregate", COPY)),
    "it writes a batch into the shadow of the next": (Freeze("shadow", "anew", third=True), command("update", SHADOW)),
    "it copies a batch into the shadow of the next": (
        Freeze("shadow", "anew", third=True),
        command("aggregate", SHADOW),
    ),
    "it drops what the next one built": (Freeze("resumed shadow", "resumed", third=True), command("drop", COPY)),
    "it puts back what was before": (Freeze("rollback", "again", third=True), command("renameCollection", CHATS)),
}


@pytest.mark.parametrize(("point", "before"), SEQUENCES.values(), ids=SEQUENCES)
def test_who_sleeps_before_a_command_does_no_harm(scene: Scene, point: Freeze, before: IsIt) -> None:
    with short_transactions(scene.database):
        assert freeze(scene, point, before), "there is no such command"


def test_the_copy_of_whoever_took_over_is_what_was_before(scene: Scene) -> None:
    scene.fill(8)
    scene.chats.update_many({}, {"$set": {"title": "as it was"}})

    def work(database: Database) -> Any:
        return rebuild(database, scene.settings, ["chat"], RebuildRequest("shadow"))

    with asleep(scene.settings, work, command("aggregate", COPY)) as first:
        assert first.is_frozen()
        expired(scene)
        resumed = in_shadow(scene, "chat", resume=True).about["rebuild"]
        assert isinstance(first.wake_up(), LeaseLost)
    roll_back(scene.database, scene.settings, resumed)
    assert {item["title"] for item in scene.chats.find()} == {"as it was"}


def test_who_inserts_what_nobody_wants_any_more_takes_it_back(scene: Scene, lives_end: Callable[[], None]) -> None:
    scene.fill(8)
    chat_id = taken_from(scene.tasks, {})["chat_id"]

    def work(database: Database) -> Any:
        return rebuild(database, scene.settings, ["task"], RebuildRequest("in_place"))

    with asleep(scene.settings, work, command("insert", "tasks_read_model")) as first:
        assert first.is_frozen()
        expired(scene)
        scene.append(chat_id, ("chat.type_changed", {"old_type": "task", "new_type": "discussion", "title": "x"}))
        assert full(scene, "task").ok
        lives_end()
        assert isinstance(first.wake_up(), LeaseLost)
    assert scene.tasks.count_documents({"chat_id": chat_id}) == 0


@pytest.mark.parametrize(
    ("point", "made"),
    [
        # Two leases are taken, and claimed when the shadows are made.
        (command("update", LEASES, 3), []),
        (command("insert", REBUILDS), ["readmodel_shadow_chats_read_model", "readmodel_shadow_tasks_read_model"]),
    ],
    ids=["before they are made", "before they are recorded"],
)
def test_who_sleeps_while_it_makes_two_shadows_leaves_none(scene: Scene, point: IsIt, made: list[str]) -> None:
    scene.fill(8)

    def work(database: Database) -> Any:
        return rebuild(database, scene.settings, [], RebuildRequest("shadow"))

    with asleep(scene.settings, work, point) as first:
        assert first.is_frozen()
        assert copies(scene) == made
        expired(scene)
        # To whom a shadow of the chats is nothing.
        assert in_shadow(scene, "task").ok
        assert isinstance(first.wake_up(), LeaseLost)
    assert copies(scene) == ["readmodel_before_tasks_read_model"]


def test_a_slice_whose_rebuild_is_done_keeps_no_lease_of_it(scene: Scene) -> None:
    scene.fill(8)

    def work(database: Database) -> Any:
        request = RebuildRequest("in_place", resume=True, slice=Slice(1, 2), campaign="a backfill")
        return rebuild(database, scene.settings, ["chat"], request)

    with asleep(scene.settings, work, command("update", LEASES, 3)) as late:
        assert late.is_frozen()
        expired(scene)
        for number in (1, 2):
            request = RebuildRequest("in_place", resume=True, slice=Slice(number, 2), campaign="a backfill")
            rebuild(scene.database, scene.settings, ["chat"], request)
        assert [item["state"] for item in records(scene)] == ["done"]
        late.wake_up()
    assert leftovers(scene) == []
    assert in_shadow(scene, "chat").ok


def test_a_slice_whose_rebuild_another_one_ended_forgets_what_it_noted_too_late(scene: Scene) -> None:
    scene.fill(8)

    def work(database: Database) -> Any:
        return rebuild(database, scene.settings, ["chat"], RebuildRequest("in_place", resume=True, slice=Slice(1, 1)))

    # Its ranges are done; it asks who finishes.
    with asleep(scene.settings, work, command("update", LEASES, 5)) as late:
        assert late.is_frozen()
        expired(scene)
        request = RebuildRequest("in_place", resume=True, slice=Slice(1, 1))
        assert rebuild(scene.database, scene.settings, ["chat"], request).about["state"] == "done"
        (ended,) = records(scene)
        Touched(scene.database, Owner("chats_read_model", ended["_id"])).add(EVENTS, ["a chat"])
        assert late.wake_up().about["state"] == "done"
    assert leftovers(scene) == []
    assert scene.database[TOUCHED].count_documents({}) == 0


@pytest.mark.parametrize("strategy", ["in_place", "shadow", "rolled back"])
def test_what_a_command_on_its_way_makes_anew_is_dropped_at_the_end(scene: Scene, at: At, strategy: str) -> None:
    scene.fill(8)
    if strategy == "rolled back":
        ended = in_shadow(scene, "chat").about["rebuild"]
    # As a `$merge` does whose shadow whoever took over has dropped.
    at(Moment.DRAINED, once(lambda: scene.database.create_collection("readmodel_shadow3_chats_read_model")))
    if strategy == "rolled back":
        assert roll_back(scene.database, scene.settings, ended).ok
    else:
        assert full(scene, "chat", strategy=strategy).ok
    assert leftovers(scene) == []


def test_a_shadow_of_which_nothing_can_be_followed_is_not_left_behind(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.fill(8)

    def fails(_: object) -> NoReturn:
        raise NoHistory("the server keeps none")

    monkeypatch.setattr(begin, "token_of_now", fails)
    with pytest.raises(ReadModelError):
        in_shadow(scene)
    assert leftovers(scene) == []


def test_a_slice_whose_rebuild_was_given_up_while_it_worked_is_no_success(scene: Scene) -> None:
    scene.fill(8)

    def work(database: Database) -> Any:
        return rebuild(database, scene.settings, [], RebuildRequest("in_place", resume=True, slice=Slice(1, 1)))

    # All is done but the end, which another one does not wait for.
    with asleep(scene.settings, work, command("update", LEASES, 5)) as given_up:
        assert given_up.is_frozen()
        expired(scene)
        assert in_shadow(scene).ok
        assert isinstance(given_up.wake_up(), LeaseLost)
    assert sorted(item["state"] for item in records(scene)) == ["aborted", "done"]


def test_what_a_rebuild_of_several_built_is_dropped_by_who_gives_it_up_again(scene: Scene) -> None:
    scene.fill(5)
    with killed_at(Moment.COPY_MADE):
        in_shadow(scene)
    (unfinished,) = records(scene)
    # Nothing is known of these: whoever made them was killed before it could say so.
    for name in ("readmodel_shadow2_tasks_read_model", "readmodel_before3_tasks_read_model"):
        scene.database.create_collection(name)
    assert in_shadow(scene, "chat").ok
    abort(scene.database, scene.settings, unfinished["_id"])
    assert copies(scene) == ["readmodel_before_chats_read_model"]


def test_what_a_woken_slice_took_out_of_the_shadow_is_put_back_before_the_gate(scene: Scene, at: At) -> None:
    scene.fill(8)
    built = scene.database["readmodel_shadow2_chats_read_model"]
    at(Moment.GATE, once(lambda: built.delete_many({})))
    slices = (RebuildRequest("shadow", resume=True, slice=Slice(number, 2)) for number in (1, 2))
    states = [rebuild(scene.database, scene.settings, ["chat"], request).about["state"] for request in slices]
    assert states == ["building", "done"]
    assert scene.verify().ok
    assert scene.chats.count_documents({"z_index": 7.0}) == 8
