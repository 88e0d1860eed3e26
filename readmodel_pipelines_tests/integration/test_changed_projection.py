"""A dry run of a changed projection says what the change does, field by field, apart from what is wrong anyway."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines.reconcile.field_changes import EXAMPLES, FieldChanges
from readmodel_pipelines_tests.support.scene import Scene

NAME = "labels_read_model"
FORM = """
from readmodel_pipelines import CHAT_FOLD, Projection

def first(chat_id, chat):
    return {"chat_id": chat_id, "title": chat.title, "size": len(chat.participants)}

def second(chat_id, chat):
    return {"chat_id": chat_id, "title": chat.title, "size": str(len(chat.participants)), "kind": chat.type}

READ_MODELS = (
    Projection("labels", "labels_read_model", CHAT_FOLD, "chat_id", ("chat_id", "title", "size", "kind"), %s),
)
"""


Changed = Callable[..., FieldChanges]


@pytest.fixture
def ids(scene: Scene) -> list[str]:
    events = list(chat_events(12, seed=3, mean_events=6))
    scene.add(events)
    return sorted({event["aggregate_id"] for event in events})


@pytest.fixture
def installed(scene: Scene, tmp_path: Path) -> Callable[[str], None]:
    """Whose settings name a file with this projection."""

    def install(rest: str) -> None:
        file = tmp_path / f"labels{len(list(tmp_path.iterdir()))}.py"
        file.write_text(FORM % rest)
        scene.settings = scene.settings.model_copy(update={"projections": (str(file),)})

    return install


@pytest.fixture
def changed(scene: Scene, ids: list[str], installed: Callable[[str], None]) -> Changed:
    """The first form is rebuilt, one title is damaged, another form comes: what a dry run says of it."""

    def dry_run(rest: str) -> FieldChanges:
        installed("first")
        assert rebuild(scene.database, scene.settings, ["labels"], RebuildRequest()).ok
        scene.collection(NAME).update_one({"chat_id": ids[4]}, {"$set": {"title": "damaged"}})
        installed(rest)
        before = scene.dump()
        summary = scene.projector("labels").rebuild_all(dry_run=True)
        assert scene.dump() == before
        json.dumps(summary.as_json())
        return summary.changes[NAME]

    return dry_run


def test_it_says_by_field_how_many_documents_change_and_with_which_version_they_were_made(
    ids: list[str], changed: Changed
) -> None:
    changes = changed("second, schema_version=2")
    assert (changes.schema_version, changes.made_with, changes.projected) == (2, 1, None)
    assert changes.stored.documents == len(ids)
    assert changes.stored.fields == {"size": len(ids), "kind": len(ids), "title": 1}
    (damaged,) = changes.stored.examples["title"]
    assert (damaged.aggregate_id, damaged.before) == (ids[4], "damaged")
    sizes = changes.stored.examples["size"]
    assert [item.aggregate_id for item in sizes] == ids[:EXAMPLES]
    assert all(item.after == str(item.before) for item in sizes)


def test_what_the_change_does_is_told_apart_from_what_is_wrong(ids: list[str], changed: Changed) -> None:
    changes = changed("second, schema_version=2, earlier=first")
    assert changes.projected is not None
    assert changes.projected.fields == {"size": len(ids), "kind": len(ids)}
    assert changes.projected.documents == len(ids)
    assert changes.stored.fields["title"] == 1


def test_a_change_of_nothing_is_told_as_such(ids: list[str], changed: Changed) -> None:
    changes = changed("first, schema_version=2, earlier=first")
    assert changes.projected is not None
    assert (changes.projected.documents, changes.stored.fields) == (0, {"title": 1})


def test_an_earlier_form_that_fails_disturbs_nothing(scene: Scene, ids: list[str], changed: Changed) -> None:
    changes = changed("second, schema_version=2, earlier=lambda chat_id, chat: chat.no_such_thing")
    assert changes.projected is not None
    assert changes.projected.documents == 0
    assert changes.stored.documents == len(ids)
    # Nor does it have a say in anything but a dry run.
    assert scene.projector("labels").rebuild_all().ok


def test_an_earlier_form_that_is_no_function_is_refused(scene: Scene, installed: Callable[[str], None]) -> None:
    from readmodel_pipelines.errors import UsageError

    installed("second, earlier=7")
    with pytest.raises(UsageError, match="earlier is no function"):
        scene.projector("labels")


def test_people_read_the_fields_with_an_example_each(
    scene: Scene, ids: list[str], changed: Changed, capsys: pytest.CaptureFixture[str]
) -> None:
    from readmodel_pipelines.cli.terminal.summary import human_lines

    changed("second, schema_version=2, earlier=first")
    lines = list(human_lines(scene.projector("labels").rebuild_all(dry_run=True)))
    at = next(place for place, line in enumerate(lines) if line.startswith(f"{NAME} (made with schema version 1"))
    assert lines[at + 3].split()[:2] == ["title", "1"]
    assert f' {ids[4]}: "damaged" → ' in lines[at + 3]
    assert "projection alone" in lines[at + 4]
    assert [line.split()[0] for line in lines[at + 5 : at + 7]] == ["kind", "size"]


def test_without_a_rebuild_on_record_nobody_knows_with_which_version_it_was_made(scene: Scene) -> None:
    scene.fill()
    assert scene.rebuild(dry_run=True).changes["chats_read_model"].made_with is None
