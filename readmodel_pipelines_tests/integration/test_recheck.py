"""What stands at a second look, by the end of its stream alone; and which streams have young events."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from readmodel_pipelines.lanes import OpenedPass, counts_of
from readmodel_pipelines.mongo.driver import server_time
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.chat import CHAT_FOLD
from readmodel_pipelines.projections.registry import choose_projections
from readmodel_pipelines.reconcile import recheck
from readmodel_pipelines.reconcile.outcome import Verdict
from readmodel_pipelines.reconcile.recheck import Recheck
from readmodel_pipelines.reconcile.run import reconcile
from readmodel_pipelines_tests.support.scene import Scene, found_in, uuid

RENAMED = ("chat.renamed", {"new_title": "Other"})
MISSING, DIFFERENT = uuid("missing"), uuid("different")


def look_at(scene: Scene) -> Recheck:
    """Two chats: the document of one is missing, that of the other one is different."""
    scene.index()
    scene.chat("missing"), scene.chat("different")
    scene.build()
    scene.chats.delete_one({"chat_id": MISSING})
    scene.chats.update_one({"chat_id": DIFFERENT}, {"$set": {"title": "broken"}})
    store = Store(scene.database, scene.settings, choose_projections(scene.settings, ["chat"]))
    opened = OpenedPass(store, counts_of(store.projections))
    return opened.again(opened.lanes[0])


def test_what_did_not_change_stands_and_no_event_is_read_for_it(scene: Scene) -> None:
    look = look_at(scene)
    seen = look.verdicts([DIFFERENT, MISSING])
    assert {verdict.aggregate_id for verdict in seen} == {DIFFERENT, MISSING}
    read = look.store.events_read
    assert look.standing(seen, 0) == (seen, {})
    assert look.store.events_read == read


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda scene: [scene.append(chat, RENAMED) for chat in (DIFFERENT, MISSING)],
        lambda scene: [scene.events.delete_many({"aggregate_id": chat}) for chat in (DIFFERENT, MISSING)],
        lambda scene: scene.build(),
        lambda scene: [
            scene.chats.update_many({"chat_id": DIFFERENT}, {"$set": {"title": "broken again"}}),
            scene.chats.insert_one({"chat_id": MISSING}),
        ],
        lambda scene: [
            scene.chats.update_many({"chat_id": DIFFERENT}, {"$set": {"due_date": None}}),
            scene.chats.insert_one({"chat_id": MISSING}),
        ],
    ],
    ids=["streams grew", "streams are gone", "documents were mended", "documents changed", "a field is null now"],
)
def test_what_changed_meanwhile_does_not_stand(scene: Scene, meanwhile: Callable[[Scene], object]) -> None:
    look = look_at(scene)
    seen = look.verdicts([DIFFERENT, MISSING])
    meanwhile(scene)
    assert look.standing(seen, 0)[0] == []


@pytest.mark.parametrize("turned", [False, True], ids=["as it was", "with its fields in another order"])
def test_what_a_full_pass_found_stands_by_its_bytes_or_its_values(
    scene: Scene, turned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = look_at(scene)
    seen: list[Verdict] = []
    reconcile(look.store, [replace(look.lane, emit=seen.append)])
    assert {verdict.aggregate_id for verdict in seen} == {DIFFERENT, MISSING}
    if turned:
        there = found_in(scene.chats, {"chat_id": DIFFERENT})
        scene.chats.replace_one({"chat_id": DIFFERENT}, dict(reversed(there.items())))
    else:
        monkeypatch.setattr(recheck, "same_value", None)
    assert look.standing(seen, 0) == (seen, {})


def test_a_stream_with_young_events_is_known_by_its_last_one(scene: Scene) -> None:
    scene.ensure_indexes()
    now = server_time(scene.database)
    ages = {
        "old": [9_000, 9_000],
        "young": [9_000, 3],
        "half": [3, 9],
        "ahead": [9_000, -3],
        "far ahead": [9_000, -9_000],
    }
    for name, seconds in ages.items():
        scene.chat(name)
        for version, ago in enumerate(seconds, 1):
            scene.events.update_one(
                {"aggregate_id": uuid(name), "version": version}, {"$set": {"created_at": now - timedelta(seconds=ago)}}
            )
    scene.chat("never said")
    scene.events.update_many({"aggregate_id": uuid("never said")}, {"$set": {"created_at": "yesterday"}})
    ids = sorted(map(uuid, [*ages, "never said"]))
    young = EventStore(scene.events).young(CHAT_FOLD, ids, 60)
    assert young == {uuid("young"): 2, uuid("half"): 1, uuid("ahead"): 2}
    last, young_too = EventStore(scene.events).ends(CHAT_FOLD, ids, 60)
    assert (young_too, last) == (young, EventStore(scene.events).last_versions(ids))
