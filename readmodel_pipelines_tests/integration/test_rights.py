"""Rights: every command does its work with the role that docs/rights.md names for it, and says what is lacking."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from readmodel_pipelines_tests.support.servers.authorized import AuthorizedServer
from readmodel_pipelines_tests.support.trials.rights import (
    NOBODY,
    REBUILD,
    TRIALS,
    VERIFY,
    RightsScene,
    Trial,
    needless,
    rights_scene,
)

MODELS = ("chats_read_model", "tasks_read_model")
DENIED = 13


@pytest.fixture
def scene(authorized: AuthorizedServer, tmp_path: Path) -> Iterator[RightsScene]:
    with rights_scene(authorized, tmp_path) as scene:
        yield scene


def printed(scene: RightsScene, role: str) -> dict[str, str]:
    """The role that `readmodel rights` prints, made on the server."""
    code, said = scene.command("mongodb://nobody.invalid", ["rights", role, "--json"])
    assert code == 0
    told = json.loads(said)
    made = scene.server.client[told["database"]]
    if not made.command("rolesInfo", told["mongodb_role"])["roles"]:
        made.command("createRole", told["mongodb_role"], privileges=told["privileges"], roles=[])
    return {"role": told["mongodb_role"], "db": told["database"]}


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.documented)
def test_a_command_does_its_work_with_its_role(scene: RightsScene, trial: Trial) -> None:
    roles = [trial.role, "pacing"] if trial.role in ("rebuild", "shadow") else [trial.role]
    user = scene.server.user_with([printed(scene, role) for role in roles])
    for outcome in scene.outcomes(trial, user):
        assert outcome.well, outcome


@pytest.mark.parametrize(
    "trial", [item for item in TRIALS if item.role == "read_only"], ids=lambda item: item.documented
)
def test_who_only_looks_writes_nothing_even_as_an_administrator(scene: RightsScene, trial: Trial) -> None:
    def content() -> Any:
        return scene.database.command("dbHash")["collections"]

    before: Any = None
    original = scene.command

    def hashed(uri: str, arguments: list[str]) -> tuple[int, str]:
        nonlocal before
        before = content()
        return original(uri, arguments)

    scene.command = hashed  # type: ignore[method-assign]
    for outcome in scene.outcomes(trial, scene.server.uri):
        assert content() == before, outcome.arguments
        assert before, "there was something to write to"


@pytest.mark.parametrize("arguments", [VERIFY, REBUILD], ids=["verify", "rebuild"])
def test_who_does_not_log_in_is_told_so_and_not_which_rights_a_user_lacks(
    scene: RightsScene, arguments: list[str]
) -> None:
    scheme, _, rest = scene.server.uri.partition("://")
    code, said = scene.command(f"{scheme}://{rest.partition('@')[2]}", arguments)
    assert code == 3
    assert "requires a login" in said
    assert "authSource" in said
    assert "may not" not in said


def test_every_write_of_a_verification_is_needed(scene: RightsScene) -> None:
    held = scene.privileges_of("verify")
    writes = [
        {**item, "actions": sorted({"insert", "update", "remove"} & set(item["actions"]))}
        for item in held
        if item["resource"]["collection"].startswith("readmodel_")
    ]
    assert len(writes) == 4
    assert needless(scene, writes, held_without(held, writes), "verify") == []


def held_without(held: list[Any], taken: list[Any]) -> list[Any]:
    gone = {item["resource"]["collection"]: set(item["actions"]) for item in taken}
    return [
        {**item, "actions": sorted(set(item["actions"]) - gone.get(item["resource"]["collection"], set()))}
        for item in held
    ]


def refused(act: Any, *arguments: Any, **options: Any) -> bool:
    try:
        act(*arguments, **options)
    except OperationFailure as error:
        return error.code == DENIED
    return False


@pytest.mark.parametrize(
    ("role", "left_alone"),
    [("verify", ("events", *MODELS, "repair_queue")), ("repair", ("events",)), ("dagster", ("events",))],
)
def test_a_role_cannot_write_what_is_not_its_own(scene: RightsScene, role: str, left_alone: tuple[str, ...]) -> None:
    space = scene.settings.database
    for name in (*left_alone, "readmodel_shadow_chats_read_model"):
        scene.server.client[space][name].insert_one({"chat_id": NOBODY})
    with MongoClient[dict[str, Any]](scene.server.user(scene.privileges_of(role))) as client:
        for collection in (client[space][name] for name in left_alone):
            assert refused(collection.insert_one, {})
            assert refused(collection.update_many, {}, {"$set": {"a": 1}})
            assert refused(collection.delete_many, {})
            assert refused(collection.drop)
            assert refused(collection.create_index, "a")
            for stage in ("$out", "$merge"):
                assert refused(client[space].chats_read_model.aggregate, [{stage: collection.name}])
            moved = f"{space}.readmodel_shadow_chats_read_model", f"{space}.{collection.name}"
            for source, target in (moved, moved[::-1]):
                assert refused(client.admin.command, "renameCollection", source, to=target, dropTarget=True)
        assert refused(client[space].unknown.insert_one, {})
        assert refused(client.drop_database, space)


@pytest.mark.parametrize("as_json", [False, True], ids=["in words", "as JSON"])
def test_what_is_lacking_is_told_with_the_role_that_has_it(scene: RightsScene, as_json: bool) -> None:
    def play(scene: RightsScene) -> Iterator[tuple[list[str], int]]:
        scene.fill()
        yield VERIFY + ["--json"] * as_json, 3

    trial = Trial("verify-consistency --all", "read_only", play)
    uri = scene.server.user(scene.privileges_of("read_only"))
    (outcome,) = scene.outcomes(trial, uri)
    assert outcome.code == 3
    assert f"insert, remove, update on {scene.settings.database}.readmodel_findings" in outcome.said
    assert "`readmodel rights verify`" in outcome.said
    assert uri.partition("://")[2].partition("@")[0].partition(":")[2] not in outcome.said


def test_an_unknown_right_is_told_by_the_command_that_wanted_it(scene: RightsScene) -> None:
    from readmodel_pipelines.errors import MongoUnavailable
    from readmodel_pipelines.mongo.connection import open_database

    uri = scene.server.user(scene.privileges_of("read_only"))
    settings = scene.settings.model_copy(update={"mongodb_uri": scene.server.settings(uri).mongodb_uri})
    with (
        pytest.raises(MongoUnavailable, match=r"may not `insert` on .*\.other\.") as denied,
        open_database(settings) as mine,
    ):
        mine.other.insert_one({})
    assert "readmodel rights" in denied.value.hint


def test_a_rebuild_that_may_not_watch_the_load_warns_and_goes_on(scene: RightsScene) -> None:
    trial = Trial("rebuild-readmodel --all", "rebuild", lambda scene: iter([(scene.damage() and REBUILD, 0)]))
    (outcome,) = scene.outcomes(trial, scene.server.user(scene.privileges_of("rebuild")))
    assert (outcome.code, "serverStatus" in outcome.said, "`readmodel rights pacing`" in outcome.said) == (
        0,
        True,
        True,
    )


def test_a_repair_into_an_empty_read_model_makes_no_index_and_says_so(scene: RightsScene) -> None:
    def into_nothing(scene: RightsScene) -> Iterator[tuple[list[str], int]]:
        wrong, *_ = scene.damage()
        scene.database.drop_collection("chats_read_model")
        yield ["rebuild-readmodel", "--type", "chat", "--id", wrong], 0
        assert scene.database.chats_read_model.count_documents({"chat_id": wrong}) == 1

    trial = Trial("rebuild-readmodel --id", "rebuild_one", into_nothing)
    (outcome,) = scene.outcomes(trial, scene.server.user(scene.privileges_of("rebuild_one")))
    assert (outcome.code, "no unique index on chat_id" in outcome.said) == (0, True)
