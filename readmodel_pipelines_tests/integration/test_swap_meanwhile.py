"""A collection is replaced while somebody reads it: by the swap of a rebuild, or by somebody who restores it."""

from collections.abc import Callable

import pytest

from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.verification.coverage import Bucket, Coverage
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.verbs.command_line import EVERYTHING, Cli
from readmodel_pipelines_tests.support.verbs.rebuilding import full, in_shadow, records
from readmodel_pipelines_tests.support.verbs.swapping import WhileRead, while_read  # noqa: F401
from readmodel_pipelines_tests.support.verbs.verifying import look

VERBS: dict[str, Callable[[Scene], Summary]] = {
    "verification": look,
    "verification of versions": lambda scene: look(scene, tier="versions"),
    "verification of a bucket": lambda scene: look(scene, coverage=Coverage(bucket=Bucket(1, 1))),
    "dry run": lambda scene: scene.rebuild(dry_run=True),
}


def swapped_in(scene: Scene) -> Callable[[], object]:
    def swap() -> None:
        assert in_shadow(scene, "chat").ok

    return swap


@pytest.mark.parametrize("verb", VERBS)
def test_who_looks_goes_on_with_what_was_swapped_in(scene: Scene, while_read: WhileRead, verb: str) -> None:  # noqa: F811
    chats = scene.fill(20)
    scene.tasks.delete_one({})
    scene.chats.update_many({"chat_id": {"$in": [chats[0], chats[-1]]}}, {"$set": {"title": "damaged"}})
    acted = while_read("chats_read_model", swapped_in(scene))
    summary = VERBS[verb](scene)
    assert acted
    seen, tasks = summary.read_models["chats_read_model"], summary.read_models["tasks_read_model"]
    assert (seen.checked, seen.same + seen.different, tasks.missing) == (20, 20, 1)
    # What was read before the swap is looked at again by a verification alone.
    assert seen.different <= (verb == "dry run")


def test_a_verification_on_the_command_line_goes_on(scene: Scene, while_read: WhileRead, cli: Cli) -> None:  # noqa: F811
    scene.fill(20)
    acted = while_read("chats_read_model", swapped_in(scene))
    assert cli("verify-consistency", *EVERYTHING).exit_code == 0
    assert acted


@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
def test_a_rebuild_of_the_other_read_model_goes_on(scene: Scene, while_read: WhileRead, strategy: str) -> None:  # noqa: F811
    scene.fill(20)
    scene.tasks.delete_one({})
    acted = while_read("tasks_read_model", swapped_in(scene))
    assert full(scene, "task", strategy=strategy).ok
    assert acted
    assert scene.verify().ok


def test_a_rebuild_in_place_looks_at_all_of_what_somebody_restored_meanwhile(
    scene: Scene,
    while_read: WhileRead,  # noqa: F811
) -> None:
    chats = scene.fill(20)
    older = [{**chat, "title": "as in the backup"} for chat in scene.chats.find()]

    def restore() -> None:
        scene.database.restored.insert_many(older)
        scene.database.restored.create_index("chat_id", unique=True)
        scene.database.restored.rename("chats_read_model", dropTarget=True)

    scene.chats.update_one({"chat_id": chats[0]}, {"$set": {"title": "damaged"}})
    acted = while_read("chats_read_model", restore)
    summary = full(scene, "chat")
    assert acted
    assert (summary.ok, records(scene)[-1]["passes"]) == (True, 2)
    assert scene.verify("chat").ok
