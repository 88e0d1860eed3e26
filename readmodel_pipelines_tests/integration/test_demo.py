"""The demo from beginning to end on an embedded server of its own, and what it refuses to touch.

It serves the web UI by the `dagster dev` of README.md.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import readmodel_pipelines
from readmodel_pipelines.cli.dagster import ui
from readmodel_pipelines.cli.dagster.ui import HOST, choose_port
from readmodel_pipelines.demo.run import run_demo
from readmodel_pipelines.errors import ReadModelError, UsageError
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.pages.terminal import free_port
from readmodel_pipelines_tests.support.servers.embedded import own_server
from readmodel_pipelines_tests.support.verbs.command_line import readmodel

DEMO = [sys.executable, "-m", "readmodel_pipelines.cli.main", "demo"]


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    """The data folder of an embedded server that ends with these tests."""
    with own_server() as server:
        yield server.data_dir


@pytest.fixture
def settings(data_dir: Path) -> Settings:
    """Settings without a URI, and a database of the test's own."""
    return of_its_own(data_dir)


def of_its_own(data_dir: Path) -> Settings:
    # A person may wait for the grace time of the live traffic; a test need not.
    return Settings(data_dir=data_dir, database=f"demo_{uuid.uuid4().hex[:12]}", grace_seconds=0.2)


@pytest.fixture(scope="module")
def played(data_dir: Path) -> tuple[Settings, bool, list[Summary]]:
    """A demo that was played through: where, whether all was well, and what its verbs told."""
    settings = of_its_own(data_dir)
    return settings, *play(settings, chats=200)


def play(settings: Settings, **options: int) -> tuple[bool, list[Summary]]:
    summaries: list[Summary] = []
    return run_demo(
        settings, say=lambda _: None, show=lambda summary, _: summaries.append(summary), **options
    ), summaries


def test_the_demo_breaks_finds_and_mends_and_ends_with_0(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"DATA_DIR": str(data_dir), "DATABASE": "demo_to_its_end", "GRACE_SECONDS": "0.2"}.items():
        monkeypatch.setenv(f"READMODEL_{name}", value)
    result = readmodel("demo", "--no-ui", "--chats", "150")
    assert (result.exit_code, result.stderr) == (0, "")
    steps = [int(number) for number in re.findall(r"^(\d+)\. ", result.stdout, re.MULTILINE)]
    assert steps == list(range(1, 12))
    damages = re.search(r"(\d+) damages", result.stdout)
    assert damages is not None
    assert f"{damages[1]} discrepancies found" in result.stdout
    assert "All is well: every document " in result.stdout


def test_an_interrupted_demo_says_in_which_step_and_what_becomes_of_it(data_dir: Path) -> None:
    env = {**os.environ, "READMODEL_DATA_DIR": str(data_dir), "READMODEL_DATABASE": "demo_interrupted"}
    with subprocess.Popen(
        [*DEMO, "--no-ui"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("2. "):
                break
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=240)
    assert process.returncode == 130
    assert stderr.startswith("Interrupted in step 2. Fill database 'demo_interrupted'")
    assert "`readmodel server stop`" in stderr


def test_a_dry_run_in_between_predicts_the_rebuild(played: tuple[Settings, bool, list[Summary]]) -> None:
    _, clean, (built, found, predicted, rebuilt, mended, stale, last) = played
    assert clean
    assert all(counts.same == 0 or counts.inserted for counts in built.read_models.values())
    assert not found.ok
    assert predicted.read_models == rebuilt.read_models
    assert (mended.ok, stale.ok, last.ok) == (True, False, True)


def test_legacy_task_streams_have_their_demo_too(settings: Settings) -> None:
    clean, (_, found, *_) = play(settings.model_copy(update={"task_source": "task"}), chats=150)
    assert clean
    assert found.read_models["tasks_read_model"].different > 50


def test_a_second_demo_starts_afresh(played: tuple[Settings, bool, list[Summary]]) -> None:
    settings, *_ = played
    with open_database(settings) as database:
        database.notes.insert_one({"not": "the demo's"})
        first = database.events.count_documents({})
        assert play(settings, chats=150)[0]
        later = database.chats_read_model.count_documents({}) - 150
        assert 0 < later < 50, "the chats of the live traffic"
        assert database.events.count_documents({}) < first
        assert database.notes.count_documents({}) == 1


@pytest.mark.parametrize("collection", ["events", "tasks_read_model", "repair_queue"])
def test_documents_that_no_demo_put_there_are_left_alone(settings: Settings, collection: str) -> None:
    with open_database(settings) as database:
        database[collection].insert_one({"task_id": "precious"})
        with pytest.raises(UsageError) as caught:
            play(settings)
        assert "READMODEL_DATABASE" in caught.value.hint
        assert database.list_collection_names() == [collection]


def test_events_that_came_after_a_demo_are_left_alone(played: tuple[Settings, bool, list[Summary]]) -> None:
    settings, *_ = played
    with open_database(settings) as database:
        database.events.insert_one({"aggregate_id": "somebody's", "version": 1})
        with pytest.raises(UsageError):
            play(settings)
        assert database.events.delete_one({"aggregate_id": "somebody's"}).deleted_count == 1


def test_a_uri_is_refused_before_anything_is_touched(settings: Settings, mongodb_uri: str) -> None:
    elsewhere = Settings(mongodb_uri=mongodb_uri, database=settings.database)
    with pytest.raises(UsageError):
        play(elsewhere)
    with open_database(elsewhere) as database:
        assert database.list_collection_names() == []


def test_too_few_chats_to_break_are_refused_with_what_to_do(settings: Settings) -> None:
    with pytest.raises(UsageError) as caught:
        play(settings, chats=20)
    assert "--chats 150" in caught.value.hint


def test_a_port_that_is_taken_is_refused_when_asked_for(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        with pytest.raises(UsageError):
            choose_port(taken.getsockname()[1])
    assert choose_port(None) > 0


def test_the_ui_imports_nothing_from_the_current_folder(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lies_here.py").touch()
    monkeypatch.chdir(tmp_path)
    # Installed, and no checkout.
    monkeypatch.setattr(readmodel_pipelines, "__file__", str(tmp_path / "installed/readmodel_pipelines/__init__.py"))
    monkeypatch.setattr(ui, "_DAGSTER_DEV", (sys.executable, "-m", "lies_here"))
    with pytest.raises(ReadModelError) as caught:
        ui.serve(settings, choose_port(None), lambda _: None, {}, lambda: None)
    assert "No module named lies_here" in caught.value.hint


def test_the_ui_of_an_installed_package_has_the_instance_that_it_brings(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "installed/readmodel_pipelines"
    package.mkdir(parents=True)
    (package / "dagster.yaml").write_text("nux: {enabled: false}\n")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setattr(readmodel_pipelines, "__file__", str(package / "__init__.py"))
    show = "import os, pathlib; print(pathlib.Path(os.environ['DAGSTER_HOME'], 'dagster.yaml').read_text())"
    monkeypatch.setattr(ui, "_DAGSTER_DEV", (sys.executable, "-c", show))
    with pytest.raises(ReadModelError) as caught:
        ui.serve(settings, choose_port(None), lambda _: None, {}, lambda: None)
    assert "nux: {enabled: false}" in caught.value.hint


def test_the_ui_answers_at_the_address_that_is_printed_and_ctrl_c_ends_it_all(data_dir: Path) -> None:
    env = {
        **os.environ,
        "READMODEL_DATA_DIR": str(data_dir),
        "READMODEL_DATABASE": "demo_ui",
        "READMODEL_GRACE_SECONDS": "0",
    }
    port = free_port()
    with subprocess.Popen(
        [*DEMO, "--chats", "150", "--port", str(port)], env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            address = next(
                (found[0] for line in process.stdout if (found := re.search(r"http://[\d.:]+", line))), "never printed"
            )
            assert address == f"http://{HOST}:{port}"
            with urllib.request.urlopen(f"{address}/server_info", timeout=240) as answer:  # noqa: S310 - our own
                assert answer.status == 200
        finally:
            process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    assert "readmodel server stop" in rest
    with socket.socket() as probe:
        assert probe.connect_ex((HOST, port)) != 0
