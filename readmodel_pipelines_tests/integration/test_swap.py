"""The swap of a rebuild in a shadow: only over the collection it was built of, within bounds, and with a way out.

Every way of replacing a live collection at every moment is in `soak/`.
"""

import json
import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from pymongo.client_session import ClientSession

from readmodel_pipelines.cutover.swap import SwapBlocked
from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.names import shadow_names
from readmodel_pipelines.rebuild import RebuildRequest, abort, rebuild
from readmodel_pipelines_tests.support.at_a_moment import At, killed_at, nth, once
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.servers.authorized import AuthorizedServer
from readmodel_pipelines_tests.support.trials.replaced import BEFORE_THE_SWAP, REPLACED, replace_at
from readmodel_pipelines_tests.support.verbs.command_line import Cli
from readmodel_pipelines_tests.support.verbs.rebuilding import full, in_shadow, leftovers, records

SHADOW = shadow_names("chats_read_model")[0]
_INDEX_BUILD = 12587
_CHOICE = random.Random(3)


# The live collection is another one


@pytest.mark.parametrize("how", REPLACED)
def test_a_live_collection_that_is_another_one_is_not_replaced(scene: Scene, how: str) -> None:
    replace_at(scene, _CHOICE.choice(BEFORE_THE_SWAP), REPLACED[how])


def test_one_that_is_replaced_at_the_very_swap_is_not_replaced_either(scene: Scene) -> None:
    replace_at(scene, Moment.SWAP, REPLACED["renamed over"])


def test_the_one_beside_it_that_is_swapped_in_stays(scene: Scene, at: At) -> None:
    scene.fill(5)
    scene.make_foreign()
    at(Moment.SWAP, nth(2, lambda: scene.tasks.drop()))
    summary = in_shadow(scene)
    counts = summary.read_models
    assert (summary.ok, summary.about["state"]) == (False, "done")
    assert (counts["chats_read_model"].failed, counts["tasks_read_model"].failed > 0) == (0, True)
    assert scene.verify("chat").ok
    assert "tasks_read_model" not in scene.database.list_collection_names()
    assert leftovers(scene) == []


def test_one_that_the_application_makes_meanwhile_is_no_other_one(scene: Scene, at: At) -> None:
    scene.index()
    first = scene.chat("nobody projected it yet")
    scene.chats.drop()
    at(Moment.GATE, once(lambda: scene.rebuild_one(first, "chat")))
    assert in_shadow(scene, "chat").ok
    assert scene.verify("chat").ok


# Others have it locked


@pytest.fixture
def impatient(scene: Scene) -> Scene:
    scene.settings = scene.settings.model_copy(update={"swap_wait_seconds": 0.05, "swap_tries": 3})
    return scene


@pytest.fixture
def transaction(impatient: Scene) -> Iterator[ClientSession]:
    """Of the application, which has written to the read model."""
    impatient.fill(5)
    with impatient.database.client.start_session() as session, session.start_transaction():
        impatient.chats.update_one({}, {"$set": {"z_index": 1}}, session=session)
        yield session


def test_a_transaction_that_does_not_end_is_waited_for_within_bounds(
    impatient: Scene, transaction: ClientSession
) -> None:
    with pytest.raises(SwapBlocked):
        in_shadow(impatient, "chat")
    assert SHADOW in impatient.database.list_collection_names()
    transaction.commit_transaction()
    assert in_shadow(impatient, "chat", resume=True).ok
    assert impatient.chats.count_documents({"z_index": 1}) == 1


def test_writers_go_on_between_two_tries_and_nothing_of_theirs_is_lost(
    impatient: Scene, transaction: ClientSession, at: At
) -> None:
    others = impatient.chats.find({"z_index": {"$ne": 1}}, session=transaction)
    one, other, *_ = [chat["chat_id"] for chat in others]

    def write(chat_id: str, value: int) -> Callable[..., object]:
        return lambda **_: impatient.chats.update_one({"chat_id": chat_id}, {"$set": {"z_index": value}})

    at(Moment.LAST_LOOK_DONE, nth(2, write(one, 2)))
    at(Moment.SWAP, nth(3, write(other, 3)))
    at(Moment.SWAP, nth(3, transaction.commit_transaction))
    assert in_shadow(impatient, "chat").ok
    assert sorted(chat["z_index"] for chat in impatient.chats.find()) == [1, 2, 3, 7, 7]


def test_nothing_before_the_swap_waits_for_a_transaction(impatient: Scene, transaction: ClientSession, at: At) -> None:
    """Whoever writes would wait behind it, in any collection of the database."""
    at(Moment.SWAP, once(transaction.commit_transaction))
    assert in_shadow(impatient, "chat").ok


def test_an_index_that_is_being_built_is_waited_for(authorized: AuthorizedServer) -> None:
    settings = authorized.settings(database=f"test_{uuid.uuid4().hex[:8]}", swap_wait_seconds=0.05, swap_tries=1)
    said: list[str] = []
    with open_database(settings) as database:
        scene = Scene(database, settings)
        scene.fill(5)
        with ExitStack() as building:
            building.enter_context(authorized.failing(_INDEX_BUILD, "renameCollection"))

            def say(phase: str) -> None:
                if "index" in phase and "built" in phase:
                    said.append(phase)
                    building.close()

            request = RebuildRequest(strategy="shadow")
            assert rebuild(database, settings, ["chat"], request, on_phase=say).ok
        database.client.drop_database(settings.database)
    assert said


# A way out


def swapping(scene: Scene, *names: str, number: int = 1) -> str:
    """A rebuild that was killed there; its id."""
    scene.fill(5)
    scene.chats.update_many({}, {"$set": {"title": "damaged"}})
    with killed_at(Moment.SWAP, number):
        in_shadow(scene, *names)
    (record,) = records(scene)
    assert record["state"] == "swapping"
    return str(record["_id"])


def test_a_shadow_that_somebody_dropped_is_told_and_nothing_is_called_done(scene: Scene) -> None:
    swapping(scene, "chat")
    before = scene.dump()["chats_read_model"]
    scene.database.drop_collection(SHADOW)
    summary = in_shadow(scene, "chat", resume=True)
    counts = summary.read_models["chats_read_model"]
    assert (summary.ok, summary.about["state"], counts.written) == (False, "refused", 0)
    assert scene.dump()["chats_read_model"] == before
    assert in_shadow(scene, "chat", resume=True).ok
    assert scene.verify("chat").ok


def test_a_shadow_that_somebody_dropped_beside_one_that_is_swapped_in_is_left_out(scene: Scene) -> None:
    swapping(scene, number=2)
    scene.tasks.update_many({}, {"$set": {"title": "damaged"}})
    scene.database.drop_collection(shadow_names("tasks_read_model")[0])
    summary = in_shadow(scene, resume=True)
    assert (summary.ok, summary.about["state"]) == (False, "done")
    assert summary.read_models["tasks_read_model"].failed
    assert scene.verify("chat").ok
    assert full(scene).ok
    assert scene.verify().ok


@pytest.mark.parametrize("number", [1, 2])
def test_a_rebuild_can_be_aborted_in_the_middle_of_its_swap(scene: Scene, number: int) -> None:
    rebuild_id = swapping(scene, number=number)
    record = abort(scene.database, scene.settings, rebuild_id)
    assert record.stored["to_do"]
    assert leftovers(scene) == []
    assert scene.verify("chat").ok is (number == 2), "what is swapped in stays"
    assert full(scene).ok
    assert scene.verify().ok


def test_a_lasting_error_at_the_swap_blocks_nothing(scene: Scene) -> None:
    """A unique index that the documents of the events cannot have."""
    swapping(scene, "chat")
    for number, chat in enumerate(list(scene.chats.find())):
        scene.chats.update_one({"_id": chat["_id"]}, {"$set": {"is_public": number}})
    scene.chats.create_index("is_public", unique=True)
    summary = in_shadow(scene, "chat", resume=True)
    assert (summary.ok, summary.about["state"]) == (False, "refused")
    assert scene.chats.count_documents({"title": "damaged"}) == 5
    abort(scene.database, scene.settings, records(scene)[0]["_id"])
    assert in_shadow(scene, "task").ok


@pytest.mark.parametrize("number", [1, 2])
def test_foreign_fields_that_no_history_tells_of_are_not_lost_at_the_swap(scene: Scene, number: int) -> None:
    rebuild_id = swapping(scene, number=number)
    with scene.tasks.watch() as stream:
        scene.tasks.update_many({}, {"$set": {"z_index": 1}})
        token = stream.next()["_id"]["_data"]
    # The same change a long time ago, of which the server knows nothing any more.
    long_ago = {"_data": token[:2] + "00000001" + token[10:]}
    tokens = {f"live_tokens.{name}": long_ago for name in ("chats_read_model", "tasks_read_model")}
    scene.database.readmodel_rebuilds.update_one({"_id": rebuild_id}, {"$set": tokens})
    assert in_shadow(scene, resume=True).about["state"] == "done"
    assert scene.tasks.count_documents({"z_index": 1}) == scene.tasks.count_documents({})
    assert scene.verify().ok
    assert leftovers(scene) == []


def test_who_rebuilds_others_is_told_how_to_end_it(scene: Scene, cli: Cli) -> None:
    rebuild_id = swapping(scene, "chat")
    with pytest.raises(ReadModelError) as refused:
        in_shadow(scene)
    assert "--type chat " in refused.value.hint
    assert f"abort {rebuild_id}" in refused.value.hint
    told = json.loads(cli("rebuilds", "abort", rebuild_id, "--json").stdout)
    assert told["state"] == "aborted"
    assert told["to_do"]
    assert in_shadow(scene).ok
