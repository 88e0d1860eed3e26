"""Roles: what they may do, how they are printed, and that docs/rights.md names one for every command."""

import json
import re
from typing import Any

import pytest

from readmodel_pipelines.mongo.rights import ROLES, Role, lacking, privileges, role_named, script
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.pages.blocks import ROOT
from readmodel_pipelines_tests.support.trials.rights import TRIALS
from readmodel_pipelines_tests.support.verbs.command_line import COMMANDS, readmodel

PAGE = ROOT / "readmodel_pipelines" / "docs" / "rights.md"
SETTINGS = Settings(database="shop", events_collection="log", chats_collection="conversations")
LOOKS = {"find", "listIndexes", "changeStream"}
WITHOUT_A_DATABASE = ("reports", "rights", "demo", "server")


def of(role: Role | str, settings: Settings = SETTINGS) -> dict[str, set[str]]:
    """The actions of a role by collection."""
    named = role_named(role) if isinstance(role, str) else role
    found = privileges(named, settings)
    return {item["resource"].get("collection", "the server"): set(item["actions"]) for item in found}


def rows() -> dict[str, str]:
    """The role by command, as the page has them."""
    found = re.findall(r"^\| (`.+`) \| `(\w+)` \| .+ \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {command.replace("`", ""): role for command, role in found}


@pytest.mark.parametrize(
    "role", [role for role in ROLES if role.name not in ("load", "indexes")], ids=lambda role: role.name
)
def test_no_role_of_the_others_does_more_with_events_than_read_them(role: Role) -> None:
    rights = of(role)
    assert rights.get("log", set()) <= LOOKS
    assert rights.get("", set()) <= {"listCollections"}
    assert not any(name for name in rights if name.startswith("system."))


def test_who_only_looks_may_only_look() -> None:
    assert set().union(*of("read_only").values()) == LOOKS


def test_a_verification_writes_nothing_but_what_it_remembers() -> None:
    writes = {name for name, actions in of("verify").items() if actions - LOOKS}
    assert writes == {"readmodel_findings", "readmodel_ignored", "readmodel_verifications", "readmodel_watermarks"}


def test_dagster_has_what_its_jobs_have_and_no_more() -> None:
    parts = [of(name) for name in ("read_only", "enqueue", "repair", "rebuild", "shadow")]
    names = set().union(*parts)
    assert of("dagster") == {name: set().union(*(part.get(name, set()) for part in parts)) for name in names}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_what_is_printed_makes_the_role(role: Role) -> None:
    held = privileges(role, SETTINGS)
    text = script(role, SETTINGS)
    (listed,) = re.findall(r"privileges: (\[\n.*?\n    \])", text, re.DOTALL)
    assert json.loads(listed) == held
    assert f'getSiblingDB("{"admin" if role.on_server else "shop"}")' in text
    assert f'role: "readmodel_{role.name}"' in text
    assert text.count("{") == text.count("}")
    assert {item["resource"].get("db", "shop") for item in held} == {"shop"}


def test_the_command_line_prints_roles_and_knows_no_others() -> None:
    assert {line.partition(" ")[0] for line in readmodel("rights").stdout.splitlines()} >= {role.name for role in ROLES}
    told = json.loads(readmodel("rights", "pacing", "--json").stdout)
    assert (told["role"], told["database"]) == ("pacing", "admin")
    unknown = readmodel("rights", "nothing")
    assert (unknown.exit_code, "read_only, verify" in unknown.stderr) == (2, True)


LOG, ALL, SERVER = {"db": "shop", "collection": "log"}, {"db": "", "collection": ""}, {"cluster": True}


@pytest.mark.parametrize(
    ("wanted", "held", "lacks"),
    [
        *((LOG, held, []) for held in (LOG, LOG | {"collection": ""}, LOG | {"db": ""}, ALL, {"anyResource": True})),
        *((LOG, held, ["shop.log"]) for held in (LOG | {"collection": "other"}, ALL | {"db": "other"}, SERVER)),
        (SERVER, ALL, ["the server"]),
        (SERVER, SERVER, []),
    ],
    ids=str,
)
def test_a_right_is_held_by_name_or_by_all_names_and_on_the_server_by_itself(
    wanted: dict[str, Any], held: dict[str, Any], lacks: list[str]
) -> None:
    needs = [{"resource": wanted, "actions": ["find"]}]
    where = "shop.log" if wanted is LOG else "the server"
    assert lacking(needs, [{"resource": held, "actions": ["find", "insert"]}]) == [("find", place) for place in lacks]
    assert lacking(needs, [{"resource": held, "actions": ["insert"]}]) == [("find", where)]


# The page


def test_the_page_says_of_each_command_the_role_that_it_is_tried_with() -> None:
    assert {(trial.documented, trial.role) for trial in TRIALS} <= set(rows().items())
    assert set(rows().values()) | {"pacing", "dagster"} == {role.name for role in ROLES}


def test_the_page_leaves_no_command_out() -> None:
    named = {part.split(" --")[0].strip() for row in rows() for part in row.split(",")}
    there = {" ".join(words) for words in COMMANDS if words[0] not in WITHOUT_A_DATABASE}
    assert there <= named
