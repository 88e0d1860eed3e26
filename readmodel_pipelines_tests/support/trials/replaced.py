"""Somebody drops or restores a live collection at some moment while its shadow is built: that one is not swapped in."""

from collections.abc import Callable, Mapping

from readmodel_pipelines.moments import Moment, listening
from readmodel_pipelines_tests.support.at_a_moment import once
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.trials.definitions import MOMENTS
from readmodel_pipelines_tests.support.verbs.rebuilding import in_shadow, leftovers

BEFORE_THE_SWAP = tuple(moment for moment in MOMENTS if moment is not Moment.SWAPPED)


def _restored(scene: Scene) -> None:
    """As from a backup, with what others had in fields of their own."""
    scene.database.drop_collection("restored")
    restored = scene.collection("restored")
    restored.insert_many([{**chat, "z_index": "restored"} for chat in scene.chats.find()])
    restored.create_index("chat_id", unique=True)


def _renamed_over(scene: Scene) -> None:
    _restored(scene)
    scene.database.restored.rename("chats_read_model", dropTarget=True)


def _dropped_and_restored(scene: Scene) -> None:
    _restored(scene)
    scene.chats.drop()
    scene.database.restored.rename("chats_read_model")


def _dropped(scene: Scene) -> None:
    scene.chats.drop()


def _renamed(scene: Scene) -> None:
    scene.chats.rename("somewhere_else")


def _dropped_and_begun_anew(scene: Scene) -> None:
    scene.chats.drop()
    scene.projector("chat").rebuild_one(scene.chat("made meanwhile"))


REPLACED: Mapping[str, Callable[[Scene], None]] = {
    "renamed over": _renamed_over,
    "dropped and restored": _dropped_and_restored,
    "dropped": _dropped,
    "renamed": _renamed,
    "dropped and begun anew": _dropped_and_begun_anew,
}


def replace_at(scene: Scene, moment: Moment, replace: Callable[[Scene], None]) -> None:
    """It is refused, what is there stays as it is, and the next rebuild goes by that."""
    scene.fill(5)
    scene.chats.update_many({}, {"$set": {"title": "damaged"}})
    there: list[object] = []

    def act() -> None:
        replace(scene)
        there.append(scene.dump().get("chats_read_model"))

    with listening(moment, once(act)):
        summary = in_shadow(scene, "chat")
    assert (summary.ok, summary.about["state"]) == (False, "refused")
    assert summary.read_models["chats_read_model"].written == 0
    assert scene.dump().get("chats_read_model") == there[0]
    foreign = {chat["chat_id"]: chat.get("z_index") for chat in scene.chats.find()}
    assert in_shadow(scene, "chat", resume=True).about["state"] == "done"
    assert scene.verify("chat").ok
    assert all(chat.get("z_index") == foreign.get(chat["chat_id"]) for chat in scene.chats.find())
    assert leftovers(scene) == []
