"""The definition of the live collection changes while its shadow is built: it is the application's, and comes along.

Every change at every moment is in `soak/`.
"""

import itertools
import random

import pytest

from readmodel_pipelines.cutover.definition import ShadowFailed
from readmodel_pipelines.moments import Moment, listening
from readmodel_pipelines.rebuild import roll_back
from readmodel_pipelines_tests.support.at_a_moment import At, killed_at, once
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.trials.definitions import (
    BEFORE_THE_GATE,
    EXPIRING,
    INDEXES,
    MOMENTS,
    OPTIONS,
    Change,
    change_at,
    change_everything,
    definition,
    dropped,
    index,
    nothing,
)
from readmodel_pipelines_tests.support.verbs.rebuilding import in_shadow

_MADE = index("theirs", ("title", 1))


@pytest.mark.parametrize("rotation", random.Random(7).sample(range(len(MOMENTS) * len(OPTIONS)), 3))
def test_changes_of_the_definition_at_any_moment_come_along(scene: Scene, rotation: int) -> None:
    change_everything(scene, rotation)


@pytest.mark.parametrize("options", OPTIONS)
def test_what_is_changed_after_the_last_look_comes_along(scene: Scene, options: list[tuple[Change, Change]]) -> None:
    change_at(scene, [(Moment.SWAP, *change) for change in (*INDEXES, *options)])


@pytest.mark.parametrize("first", [0, 1])
def test_an_index_that_lets_documents_expire_comes_along_from_the_gate_on(scene: Scene, first: int) -> None:
    moments = [moment for moment in MOMENTS if moment not in BEFORE_THE_GATE][first:]
    made_and_dropped = itertools.cycle([EXPIRING, dropped("expiring")])
    change_at(scene, [(moment, nothing, next(made_and_dropped)) for moment in moments])


def test_an_index_that_lets_documents_expire_is_refused_before_the_gate(scene: Scene, at: At) -> None:
    scene.fill(3)
    before = scene.dump()["chats_read_model"]
    at(Moment.SHADOW_INDEXES, once(lambda: EXPIRING(scene.chats)))
    with pytest.raises(ShadowFailed):
        in_shadow(scene, "chat")
    assert scene.dump()["chats_read_model"] == before
    scene.chats.drop_index("expiring")
    assert in_shadow(scene, "chat", resume=True).ok


@pytest.mark.parametrize("moment", [Moment.SWAP, Moment.SWAPPED])
def test_who_resumes_brings_along_what_was_changed_before_the_swap(scene: Scene, at: At, moment: Moment) -> None:
    scene.fill(3)
    at(Moment.SWAP, once(lambda: _MADE(scene.chats)))
    with killed_at(moment):
        in_shadow(scene, "chat")
    assert in_shadow(scene, "chat", resume=True).ok
    assert "theirs" in definition(scene.chats)["indexes"]


@pytest.fixture
def unique(scene: Scene) -> Change:
    """A unique index that the documents of now may have, and those that the events make may not."""
    scene.fill(3)
    for number, chat in enumerate(list(scene.chats.find())):
        scene.chats.update_one({"_id": chat["_id"]}, {"$set": {"is_public": number}})
    return index("theirs", ("is_public", 1), unique=True)


def test_an_index_that_the_new_documents_stand_against_is_refused(scene: Scene, unique: Change) -> None:
    before = scene.dump()["chats_read_model"]
    with listening(Moment.COPY_MADE, once(lambda: unique(scene.chats))):
        summary = in_shadow(scene, "chat")
    assert (summary.ok, summary.about["state"]) == (False, "refused")
    assert scene.dump()["chats_read_model"] == before
    scene.chats.drop_index("theirs")
    assert in_shadow(scene, "chat", resume=True).ok


def test_what_cannot_be_brought_along_after_the_swap_is_told(scene: Scene, unique: Change) -> None:
    with listening(Moment.SWAP, once(lambda: unique(scene.chats))):
        summary = in_shadow(scene, "chat")
    assert summary.about["state"] == "done"
    assert len(summary.warnings) == 1
    assert scene.verify("chat").ok


def test_an_index_that_no_document_of_the_events_can_have_is_refused(scene: Scene) -> None:
    scene.fill(3)
    scene.chats.update_many({}, {"$set": {"list": [1], "participants": ""}})
    scene.chats.create_index([("list", 1), ("participants", 1)], name="of two arrays")
    with pytest.raises(ShadowFailed):
        in_shadow(scene, "chat")
    scene.chats.drop_index("of two arrays")
    assert in_shadow(scene, "chat", resume=True).ok


def test_an_index_that_is_made_while_a_rollback_goes_on_comes_along(scene: Scene, at: At) -> None:
    scene.fill(3)
    rebuilt = in_shadow(scene).about["rebuild"]
    at(Moment.SWAP, once(lambda: scene.tasks.create_index("title", name="theirs")))
    assert roll_back(scene.database, scene.settings, rebuilt).ok
    assert "theirs" in scene.tasks.index_information()
