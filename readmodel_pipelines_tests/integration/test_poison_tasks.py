"""Tasks that nobody should have written: each is a dead letter, or does no harm, and keeps nobody from the others.

A grammar: every field of a task, and every type and hostile value of BSON in it, missing and twice.
"""

import json
from functools import partial
from typing import Any

import pytest

from readmodel_pipelines.bookkeeping.repair_task import DEAD_LETTER_REASONS, key_of
from readmodel_pipelines.events.exact import written
from readmodel_pipelines.mongo.collection import Collection
from readmodel_pipelines.mongo.exactly import found_exactly
from readmodel_pipelines.mongo.names import SET_ASIDE
from readmodel_pipelines_tests.support.environment import name_database
from readmodel_pipelines_tests.support.poison_tasks import FIELDS, lay, variations
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.verbs.command_line import Cli, readmodel
from readmodel_pipelines_tests.support.verbs.repairing import break_all, put, queue_of, repair, stored, task

NOBODY = "00000000-0000-4000-8000-000000000000"


def by_id(scene: Scene, collection: str = "repair_queue") -> dict[bytes, dict[str, Any]]:
    found = found_exactly(Collection(scene.database, collection), {})
    return {key_of(item): item for item in found}


@pytest.fixture
def cli(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Cli:
    name_database(monkeypatch, scene.settings)
    return partial(readmodel)


@pytest.fixture
def good(scene: Scene, ids: list[str]) -> list[str]:
    """Five chats whose documents are wrong, each with a task that is sound; the sixth is for the others."""
    break_all(scene)
    put(scene, *(task(chat_id, _id=f"good {chat_id}") for chat_id in ids[:5]))
    return ids


def said(cli: Cli, *arguments: Any, codes: tuple[int, ...] = (0,)) -> Any:
    result = cli(*arguments)
    assert result.exit_code in codes, (arguments, result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    shown = result.stdout + result.stderr
    assert set(filter(lambda char: not char.isprintable(), shown)) <= {"\n"}
    assert "Traceback" not in shown
    return json.loads(result.stdout) if "--json" in arguments else result.stdout


def look_at_it(cli: Cli) -> None:
    """Everything that only looks goes on, whatever lies there."""
    for arguments in (
        ("repair-queue", "stats"),
        ("repair-queue", "stats", "--json"),
        ("repair-queue", "list", "--limit", 2_000),
        ("repair-queue", "list", "--limit", 2_000, "--json"),
        ("repair-queue", "list", "--status", "failed"),
        ("metrics", "--once"),
    ):
        said(cli, *arguments)
    checks = {item["name"]: item for item in said(cli, "doctor", "--json", codes=(0, 1))["checks"]}
    assert "has another form" not in checks["repair queue"]["found"]


def test_whatever_stands_in_a_task_all_others_are_repaired_and_it_is_told(
    scene: Scene, cli: Cli, good: list[str]
) -> None:
    grammar = [(field, wrong) for field in FIELDS for _, wrong in variations(field, good[5])]
    wrong_in = {key_of(wrong): field for field, wrong in grammar}
    laid = lay(scene.database, [wrong for _, wrong in grammar])
    assert len(laid) > 1_000
    look_at_it(cli)
    done = said(cli, "repair-queue", "work", "--once", "--json", codes=(0, 1))
    look_at_it(cli)

    tasks, aside = by_id(scene), by_id(scene, SET_ASIDE)
    for chat_id in good[:5]:
        assert tasks[key_of({"_id": f"good {chat_id}"})]["status"] == "completed"
        assert scene.verify_one(chat_id).ok
    stats = queue_of(scene).stats()
    assert stats.due == 0
    assert stats.failed == done["parked"]
    for wrong in laid:
        field = wrong_in[key_of(wrong)]
        became = aside.get(key_of(wrong)) or tasks[key_of(wrong)]
        if became.get("status") == "failed":
            assert became["reason"] in DEAD_LETTER_REASONS
            assert became["attempts"][-1]["detail"]
        elif became.get("status") in ("pending", "processing"):
            # Of a date that is far away, as its producer would have it.
            assert field in ("next_attempt_at", "lease_until")
        elif became.get("status") != "completed":
            assert field == "status"
    # Nothing that is done once more takes anything else.
    assert said(cli, "repair-queue", "work", "--once") == "Nothing was due.\n"
    said(cli, "repair-queue", "requeue", "--all-failed")
    assert not aside or by_id(scene, SET_ASIDE) == {}
    again = said(cli, "repair-queue", "work", "--once", "--json", codes=(0, 1))
    assert again["parked"] == done["parked"]
    said(cli, "repair-queue", "purge", "--status", "failed", "--yes")
    assert queue_of(scene).stats().failed == 0
    assert by_id(scene, SET_ASIDE) == {}


def of_size(size: int, **other: Any) -> dict[str, Any]:
    """A task of so many bytes."""
    wrong = {**task(NOBODY), **other, "error": ""}
    return {**wrong, "error": "x" * (size - len(written(wrong)))}


LARGEST = 16 * 2**20


@pytest.mark.parametrize("status", ["pending", "processing"])
def test_a_task_with_no_room_for_a_status_is_set_aside_and_everybody_takes_it_for_a_dead_letter(
    scene: Scene, cli: Cli, good: list[str], status: str
) -> None:
    sizes = (LARGEST, LARGEST - 200, LARGEST - 2_000)
    ids = [f"of {size} bytes" for size in sizes]
    large = [of_size(size, _id=f"of {size} bytes", aggregate_id=good[5], status=status) for size in sizes]
    put(scene, *large)
    assert queue_of(scene).stats().due == 8
    done = said(cli, "repair-queue", "work", "--once", "--json", codes=(1,))

    assert (done["completed"], done["parked"], done["lost"]) == (5, 3, 0)
    stats = queue_of(scene).stats()
    assert (stats.due, stats.open, stats.failed) == (0, 0, 3)
    assert stats.dead_letters == {"cannot_be_written": 3}
    assert [item["status"] for item in stored(scene, _id={"$in": ids})] == [status] * 3, "as they were"
    listed = said(cli, "repair-queue", "list", "--status", "failed", "--json")["tasks"]
    assert {item["_id"] for item in listed} == set(ids)
    assert {item["attempts"][0]["reason"] for item in listed} == {"cannot_be_written"}
    # One that comes for the same aggregate is no task that somebody else takes in.
    assert queue_of(scene).add(good[5], "chat", "again")
    assert repair(scene).completed == 1
    assert scene.verify_one(good[5]).ok

    scene.database.repair_queue.update_one({"_id": ids[0]}, {"$set": {"error": "mended"}})
    assert "1 task requeued" in said(cli, "repair-queue", "requeue", "--id", ids[0])
    assert repair(scene).completed == 1
    assert said(cli, "repair-queue", "purge", "--status", "failed", "--yes") == "2 tasks deleted.\n"
    assert stored(scene, _id={"$in": ids[1:]}) == []


def test_where_a_rule_of_the_collection_refuses_some_tasks_the_others_are_repaired(
    scene: Scene, cli: Cli, good: list[str]
) -> None:
    refused = {"error": {"$ne": "refused"}}
    put(scene, *(task(chat_id, _id=f"refused {chat_id}", error="refused") for chat_id in good))
    scene.database.command("collMod", "repair_queue", validator=refused, validationLevel="strict")
    done = said(cli, "repair-queue", "work", "--once", "--json", codes=(1,))

    assert scene.verify_one(good[0]).ok
    stats = queue_of(scene).stats()
    assert (stats.due, stats.completed, stats.failed) == (0, 5, 6)
    assert (done["claimed"], done["completed"], done["parked"], done["lost"]) == (11, 5, 6, 0)
    assert {letter["reason"] for letter in done["dead_letters"]} == {"cannot_be_written"}
    assert said(cli, "repair-queue", "work", "--once") == "Nothing was due.\n"


def test_where_no_task_can_be_written_it_ends_in_words(
    scene: Scene, cli: Cli, good: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("readmodel_pipelines.bookkeeping.set_aside._MOST", 3)
    scene.database.command("collMod", "repair_queue", validator={"nobody": {"$exists": True}}, validationLevel="strict")
    said(cli, "repair-queue", "work", "--once", codes=(1,))
