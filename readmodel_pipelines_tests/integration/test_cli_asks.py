"""What cannot be undone is done when somebody says so, and asked about only when it can be; odd requests are errors."""

import json
import re

import pytest

from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.verbs.command_line import Cli


@pytest.fixture
def rebuilt(scene: Scene) -> str:
    """A rebuild in a shadow that is done."""
    scene.fill()
    summary = rebuild(scene.database, scene.settings, [], RebuildRequest("shadow"))
    return str(summary.rebuild.id)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_rollback_that_nobody_is_sure_of_is_refused_where_nobody_can_be_asked(
    scene: Scene, rebuilt: str, cli: Cli, as_json: bool
) -> None:
    before = scene.dump()
    ended = cli("rebuilds", "rollback", rebuilt, *["--json"] * as_json)
    assert ended.exit_code == 2
    assert "--yes" in ended.stderr
    assert scene.dump() == before
    if as_json:
        assert json.loads(ended.stdout)["error"]["code"] == "usage"


def test_a_rebuild_that_is_unknown_is_told_before_anybody_is_asked(scene: Scene, cli: Cli) -> None:
    ended = cli("rebuilds", "rollback", "nonsense")
    assert ended.exit_code == 2
    assert "nonsense" in ended.stderr
    assert "--yes" not in ended.stderr


def test_a_reason_that_no_dead_letter_can_have_is_an_error(cli: Cli) -> None:
    ended = cli("repair-queue", "requeue", "--reason", "nonsense")
    assert ended.exit_code == 2
    assert "'nonsense'" in ended.stderr
    assert cli("repair-queue", "requeue", "--reason", "write_refused").exit_code == 0


def test_a_rebuild_is_shown_without_the_spelling_of_a_program(rebuilt: str, cli: Cli) -> None:
    said = cli("rebuilds", "show", rebuilt).stdout
    assert not re.search(r"[\[{]'|datetime|ObjectId|Int64|\bNone\b|\bTrue\b|\bFalse\b", said), said
    assert re.search(r"^read models +chats_read_model, tasks_read_model$", said, re.MULTILINE)
    assert re.search(r"^started at +\d{4}-\d\d-\d\d .* UTC$", said, re.MULTILINE)
