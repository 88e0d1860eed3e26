"""Reports from the command line: the files that `verify-consistency --report` writes."""

import csv
import json
from pathlib import Path

import pytest

from readmodel_pipelines.reports.writer import COLUMNS
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.verbs.command_line import EVERYTHING, NOBODY, Cli


def test_a_json_report_is_the_json_document(cli: Cli, damaged: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    result = cli("verify-consistency", *EVERYTHING, "--report", file, "--json")
    assert result.exit_code == 1
    report, document = json.loads(file.read_text()), json.loads(result.stdout)
    assert document.pop("reports") == [str(file)]
    assert report.pop("database")
    assert report.pop("mend")[0]["command"] == "readmodel rebuild-readmodel --type chat --all"
    assert report["findings"][0].pop("mend") == f"readmodel rebuild-readmodel --type chat --id {damaged}"
    assert report == document
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_report_that_is_asked_for_twice_is_one_and_no_failure(cli: Cli, known: list[str], tmp_path: Path) -> None:
    file = tmp_path / "report.csv"
    result = cli("verify-consistency", *EVERYTHING, "--report", file, "--report", file, "--json")
    assert (result.exit_code, json.loads(result.stdout)["reports"]) == (0, [str(file)])


def test_a_csv_report_has_a_row_for_each_field_and_one_for_a_finding_without(
    database: Mongo, cli: Cli, damaged: str, known: list[str], tmp_path: Path
) -> None:
    database.tasks_read_model.insert_one({"task_id": {"odd": 1}, "chat_id": NOBODY})
    file = tmp_path / "report.CSV"
    file.write_text("an older report")
    assert cli("verify-consistency", *EVERYTHING, "--report", file).exit_code == 1
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert tuple(rows[0]) == COLUMNS
    of_chat = {row["field"]: row for row in rows if row["aggregate_id"] == damaged}
    assert set(of_chat) == {"title", "is_public"}
    assert of_chat["title"]["actual"] == '"wrong"'
    assert json.loads(of_chat["is_public"]["actual"]) == {"$absent": True}
    (odd,) = [row for row in rows if row["outcome"] == "orphan"]
    assert (json.loads(odd["aggregate_id"]), odd["reason"], odd["field"]) == ({"odd": 1}, "odd_key", "")


@pytest.mark.parametrize("name", ["report.txt", "report", "no/such/folder/report.csv", "folder.json"])
def test_a_report_that_cannot_be_written_is_refused_before_the_work_starts(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "folder.json").mkdir()
    # Nothing answers there, so a later refusal would be another one.
    monkeypatch.setenv("READMODEL_MONGODB_URI", "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=300")
    result = cli("verify-consistency", *EVERYTHING, "--report", tmp_path / name)
    assert result.exit_code == 2
    assert name.rpartition("/")[0] in result.stderr
