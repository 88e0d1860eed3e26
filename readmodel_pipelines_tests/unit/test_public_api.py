"""What an application imports comes from the package's root alone: a list that is held here, and imported lazily."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import readmodel_pipelines
from readmodel_pipelines.errors import EmbeddedServerError, NoCopy, ReadModelError

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "readmodel_pipelines"
DOCUMENTS = (ROOT / "README.md", *PACKAGE.glob("*.md"), *PACKAGE.glob("docs/**/*.md"), *PACKAGE.glob("docs/**/*.py"))

PUBLIC = [
    *("Settings", "load_settings", "open_database"),
    *("ReadModelProjector", "Summary", "Finding", "Outcome"),
    *("EventRepository", "NewEvent", "Saved"),
    *("RepairQueue", "RepairSummary", "RepairWorker", "repair_on_failure"),
    *("CHAT_FOLD", "Chat", "TASK_FOLD", "Task", "Document", "Projection"),
    *("EventType", "Fold", "Malformed", "Reason", "fold_streams"),
    *("BadField", "Event", "ZERO_TIME_MS", "flag", "integer", "occurred_at_ms", "optional_text", "optional_time_ms"),
    *("parse_time", "text", "time_ms"),
    *("AggregateNotFound", "ConcurrencyConflict", "EventRefused", "LeaseLost", "MongoUnavailable", "ReadModelBusy"),
    *("ReadModelError", "RepairNotQueued", "RepairQueueFull", "UsageError", "WrongAggregateType"),
]


def test_these_names_are_public_and_no_others() -> None:
    assert sorted(readmodel_pipelines.__all__) == sorted(PUBLIC)  # type: ignore[attr-defined]
    assert set(PUBLIC) <= set(dir(readmodel_pipelines))


@pytest.mark.parametrize("name", PUBLIC)
def test_each_can_be_imported_and_says_what_it_is(name: str) -> None:
    given = getattr(readmodel_pipelines, name)
    assert given.__doc__
    assert given is getattr(readmodel_pipelines, name)


def test_codes_of_errors_are_stable() -> None:
    public = [getattr(readmodel_pipelines, name) for name in PUBLIC]
    errors = [item for item in public if isinstance(item, type) and issubclass(item, ReadModelError)]
    assert {item.code for item in errors} == {
        *("aggregate_not_found", "concurrency_conflict", "error", "event_refused", "lease_lost", "mongo_unavailable"),
        *("read_model_busy", "repair_not_queued", "repair_queue_full", "usage", "wrong_aggregate_type"),
    }
    assert (NoCopy.code, EmbeddedServerError.code) == ("usage", "embedded_server")


def test_a_name_that_is_not_there_is_said_so() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Projector'"):
        _ = readmodel_pipelines.Projector  # type: ignore[attr-defined]


def test_type_checkers_see_the_same_list() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imported = [item for item in ast.walk(tree) if isinstance(item, ast.ImportFrom)]
    seen = {alias.asname: item.module for item in imported for alias in item.names if alias.asname}
    assert seen == {name: f"readmodel_pipelines.{where}" for name, where in readmodel_pipelines._MODULES.items()}


def test_importing_the_package_imports_nothing_else_of_it() -> None:
    program = "import sys; before = set(sys.modules); import readmodel_pipelines; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=240)
    assert "readmodel_pipelines" in done.stdout.split()
    assert not [name for name in done.stdout.split() if name.startswith("readmodel_pipelines.")]


def test_documents_and_their_examples_import_from_the_root() -> None:
    found = {
        (document.name, module)
        for document in DOCUMENTS
        for module in re.findall(r"^\s*(?:from|import) (readmodel_pipelines[\w.]*)", document.read_text(), re.MULTILINE)
    }
    assert {module for _, module in found} == {"readmodel_pipelines", "readmodel_pipelines.docs.examples.chat_activity"}


def test_the_package_itself_does_not() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir()}
    for path in PACKAGE.rglob("*.py"):
        if "docs" in path.parts:
            continue
        for item in ast.walk(ast.parse(path.read_text())):
            if isinstance(item, ast.ImportFrom) and item.module == "readmodel_pipelines":
                assert {alias.name for alias in item.names} <= rooms, path
