"""`findings` and `status`: what is open, what somebody knows of and has ignored until a date, all on one screen."""

import errno
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from readmodel_pipelines.bookkeeping.ignored import Rule, Rules
from readmodel_pipelines.mongo.names import FINDINGS, IGNORED
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.outcome import Outcome
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.verbs.command_line import EVERYTHING, Cli

CHATS = "chats_read_model"
FAR = "2999-12-31"
NOW = datetime(2026, 11, 29)  # noqa: DTZ001 - as dates come back from the server


def told(result: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def different(*fields: str, aggregate_id: Any = "a", read_model: str = CHATS) -> Finding:
    return Finding(read_model, aggregate_id, Outcome.DIFFERENT, fields=dict.fromkeys(fields, (1, 2)))


def rule(aggregate_id: str | None = None, field: str | None = None) -> Rule:
    return Rule("1", CHATS, aggregate_id, field, "known", NOW, NOW)


@pytest.mark.parametrize(
    ("rules", "finding", "ignored"),
    [
        ([], different("title"), False),
        ([rule("a")], different("title", "type"), True),
        ([rule("a")], different("title", aggregate_id="b"), False),
        ([rule("a")], Finding(CHATS, "a", Outcome.ORPHAN), True),
        ([rule("a")], Finding(CHATS, "a", Outcome.MALFORMED), False),
        ([rule("a")], different("title", read_model="tasks_read_model"), False),
        ([rule(field="title")], different("title"), True),
        ([rule(field="title")], different("title", "type"), False),
        ([rule(field="title"), rule(field="type")], different("title", "type"), True),
        ([rule(field="title")], Finding(CHATS, "a", Outcome.MISSING), False),
        ([rule("a", "title")], different("title", aggregate_id="b"), False),
        ([rule("a", "title")], different("title"), True),
    ],
)
def test_a_rule_covers_what_it_names_and_nothing_more(rules: list[Rule], finding: Finding, ignored: bool) -> None:
    assert Rules(rules)(finding) is ignored


def test_what_is_known_is_ignored_until_a_date_counted_apart_and_told(database: Mongo, damaged: str, cli: Cli) -> None:
    assert cli("verify-consistency", *EVERYTHING).exit_code == 1
    listed = told(cli("findings", "list", "--json"))
    assert [(item["aggregate_id"], item["outcome"]) for item in listed["findings"]] == [(damaged, "different")]

    known = ("--type", "chat", "--id", damaged, "--reason", "the importer is being mended", "--until", FAR)
    (made,) = told(cli("findings", "ignore", *known, "--json"))["ignored"]
    seen = cli("verify-consistency", *EVERYTHING, "--json")
    assert seen.exit_code == 0
    assert told(seen)["ignored"] == {CHATS: 1}
    assert told(seen)["read_models"][CHATS]["different"] == 0
    assert "1 more is ignored" in cli("verify-consistency", *EVERYTHING).stdout
    assert database[FINDINGS].count_documents({"state": "open"}) == 0
    assert cli("verify-consistency", "--type", "chat", "--id", damaged).exit_code == 0

    database[IGNORED].update_one({"_id": made["id"]}, {"$set": {"until": NOW}})
    assert cli("verify-consistency", *EVERYTHING).exit_code == 1, "its end is over"
    assert told(cli("findings", "list", "--json"))["ignored"][0]["in_force"] is False
    assert cli("findings", "unignore", made["id"]).exit_code == 0
    assert cli("findings", "unignore", made["id"]).exit_code == 2
    assert told(cli("findings", "list", "--json"))["ignored"] == []


@pytest.mark.parametrize(
    "options",
    [
        ("--reason", "known", "--until", FAR),
        ("--id", "x", "--reason", " ", "--until", FAR),
        ("--id", "x", "--reason", "known", "--until", "2020-01-01"),
        ("--id", "x", "--reason", "known", "--until", "some day"),
        ("--field", "titel", "--reason", "known", "--until", FAR),
    ],
)
def test_a_rule_wants_something_to_ignore_a_reason_and_an_end_that_is_to_come(
    database: Mongo, cli: Cli, options: tuple[str, ...]
) -> None:
    assert cli("findings", "ignore", "--type", "chat", *options).exit_code == 2
    assert database[IGNORED].count_documents({}) == 0


def test_a_rule_goes_to_the_read_models_that_own_its_field_and_an_id_is_taken_as_events_have_it(
    database: Mongo, cli: Cli
) -> None:
    known = ("--reason", "known", "--until", FAR)
    made = told(cli("findings", "ignore", "--type", "all", "--field", "is_public", *known, "--json"))["ignored"]
    assert [rule["read_model"] for rule in made] == [CHATS]
    shouted = ("--id", " 058D54C8-4BB2-4626-AF84-652C580962B2")
    (rule,) = told(cli("findings", "ignore", "--type", "chat", *shouted, *known, "--json"))["ignored"]
    assert rule["aggregate_id"] == "058d54c8-4bb2-4626-af84-652c580962b2"


def test_a_rule_of_another_form_ignores_nothing_and_stops_nobody(database: Mongo, damaged: str, cli: Cli) -> None:
    database[IGNORED].insert_many([{"_id": 7, "read_model": CHATS}, {"read_model": 5, "aggregate_id": damaged}])
    assert cli("verify-consistency", *EVERYTHING).exit_code == 1
    assert told(cli("findings", "list", "--json"))["ignored"] == []


def test_status_is_one_screen_that_writes_nothing(database: Mongo, settings: Settings, damaged: str, cli: Cli) -> None:
    assert cli("rebuild-readmodel", "--type", "task", "--all").exit_code == 0
    before = cli("status")
    assert before.exit_code == 0
    assert "never verified" in before.stdout
    cli("verify-consistency", *EVERYTHING)
    found = told(cli("status", "--json"))
    assert found["read_models"][CHATS]["open"] == {"different": 1}
    assert found["read_models"][CHATS]["discrepancies"] == 1
    assert found["queue"]["pending"] == 0
    assert [item["state"] for item in found["rebuilds"]] == ["done"]
    assert len(cli("status").stdout.splitlines()) <= 24


def test_a_report_that_cannot_be_written_is_no_discrepancy(
    damaged: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("readmodel_pipelines.verification.reporting.ReportWriter.finish", full)
    report = ("--report", tmp_path / "report.html")
    assert cli("verify-consistency", *EVERYTHING, *report).exit_code == 1, "there is one, whatever became of the report"
    assert cli("rebuild-readmodel", *EVERYTHING).exit_code == 0
    assert cli("verify-consistency", *EVERYTHING, *report).exit_code == 6
