"""The command line as a person or a script meets it: exit codes, stdout and stderr, no secrets."""

import gzip
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from readmodel_pipelines.bookkeeping.leases import hold_leases
from readmodel_pipelines_tests.support.scene import Mongo, found_in
from readmodel_pipelines_tests.support.verbs.command_line import EVERYTHING, NOBODY, Cli

PROGRAM = [sys.executable, "-m", "readmodel_pipelines.cli.main"]
COUNTS = {
    *("checked", "same", "missing", "different", "unexpected", "orphan", "lagging", "malformed", "undecided"),
    *("inserted", "replaced", "deleted", "superseded", "failed"),
}


# Exit codes


def test_a_discrepancy_makes_verify_exit_1_and_shows_the_field_and_what_to_run(cli: Cli, damaged: str) -> None:
    result = cli("verify-consistency", *EVERYTHING)
    assert result.exit_code == 1
    assert f"chats_read_model  {damaged}  different" in result.stdout
    assert ' → "wrong"' in result.stdout
    assert "is_public: " in result.stdout
    assert "→ (absent)" in result.stdout
    assert "`readmodel rebuild-readmodel --type all --all` repairs 1" in result.stdout


def test_one_aggregate_can_be_verified_and_mended_alone(cli: Cli, damaged: str, known: list[str]) -> None:
    assert cli("verify-consistency", "--type", "chat", "--id", known[0]).exit_code == 0
    assert cli("verify-consistency", "--type", "task", "--id", damaged).exit_code == 0
    found = cli("verify-consistency", "--type", "chat", "--id", damaged)
    assert found.exit_code == 1
    assert f"`readmodel rebuild-readmodel --type chat --id {damaged}` repairs 1" in found.stdout
    assert cli("rebuild-readmodel", "--type", "chat", "--id", damaged.upper()).exit_code == 0
    assert cli("verify-consistency", *EVERYTHING).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--type", "all"), "Neither --id nor --all"),
        (("--type", "all", "--all", "--id", NOBODY), "Both --id and --all"),
        (("--type", "chats", "--all"), "chat, task, all"),
        (("--all",), "--type"),
        (("--type", "chat", "--id", "42"), "8-4-4-4-12"),
        (("--type", "chat", "--id", ""), "8-4-4-4-12"),
        (("--type", "chat", "--all", "--max-findings", "-1"), "--max-findings"),
        (("--type", "chat", "--all", "--no-such-option"), "--no-such-option"),
    ],
)
@pytest.mark.parametrize("command", ["rebuild-readmodel", "verify-consistency"])
def test_a_request_that_makes_no_sense_exits_2_in_words(cli: Cli, command: str, arguments: Any, said: str) -> None:
    result = cli(command, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_an_unreachable_server_exits_3_without_credentials(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # Bound and not listening: nobody answers there.
        port = taken.getsockname()[1]
        uri = f"mongodb://user:s3cr3t@127.0.0.1:{port}/?serverSelectionTimeoutMS=300"
        monkeypatch.setenv("READMODEL_MONGODB_URI", uri)
        result = cli("rebuild-readmodel", *EVERYTHING, "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["error"]["code"] == "mongo_unavailable"
    assert f"MongoDB at mongodb://127.0.0.1:{port}/?serverSelectionTimeoutMS=300 does not answer" in result.stderr
    assert "s3cr3t" not in result.stdout + result.stderr


def test_a_read_model_that_somebody_rebuilds_exits_1_and_says_who(database: Mongo, cli: Cli, known: list[str]) -> None:
    with hold_leases(database, ["tasks_read_model"], 60, "the night shift"):
        result = cli("rebuild-readmodel", *EVERYTHING, "--json")
    assert result.exit_code == 1
    assert "the night shift" in result.stderr
    assert json.loads(result.stdout)["error"]["code"] == "read_model_busy"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "a polite kill"])
def test_an_interrupted_command_exits_130_in_words(env: dict[str, str], number: signal.Signals) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"mongodb://127.0.0.1:{silent.getsockname()[1]}/?serverSelectionTimeoutMS=60000"
        process = subprocess.Popen(
            [*PROGRAM, "verify-consistency", *EVERYTHING],
            env=env | {"READMODEL_MONGODB_URI": uri},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with silent.accept()[0]:
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 130
    assert stdout == ""
    assert stderr.startswith("Interrupted")
    assert stderr.endswith(": readmodel verify-consistency --type all --all\n")


# What is printed, and where


def test_json_is_exactly_one_document_with_the_documented_keys(cli: Cli, damaged: str) -> None:
    result = cli("verify-consistency", *EVERYTHING, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert set(document) == {
        *("verb", "aggregate_type", "events", "seconds", "read_models", "findings", "causes", "warnings"),
        *("tier", "coverage", "started_at", "closed"),
    }
    assert (document["verb"], document["aggregate_type"]) == ("verify", "all")
    assert (document["tier"], document["coverage"]) == ("documents", "every aggregate")
    assert set(document["read_models"]) == {"chats_read_model", "tasks_read_model"}
    assert all(set(counts) == COUNTS for counts in document["read_models"].values())
    (finding,) = document["findings"]
    always = {"read_model", "aggregate_id", "outcome", "reason", "fields"}
    assert set(finding) == always | {"first_seen", "age_seconds", "cause"}
    assert (finding["aggregate_id"], finding["outcome"], finding["reason"]) == (damaged, "different", None)
    assert finding["fields"]["title"]["actual"] == "wrong"
    assert finding["fields"]["is_public"]["actual"] == {"$absent": True}


def test_a_malformed_stream_exits_1_and_json_names_the_event(database: Mongo, cli: Cli, known: list[str]) -> None:
    event = found_in(database.events, {"aggregate_id": known[1], "version": 1})
    database.events.update_one({"aggregate_id": known[1], "version": 1}, {"$set": {"event_type": "?"}})
    result = cli("rebuild-readmodel", *EVERYTHING)
    assert result.exit_code == 1
    assert "2 malformed streams" in result.stdout
    document = json.loads(cli("verify-consistency", "--type", "chat", "--all", "--json").stdout)
    (finding,) = document["findings"]
    assert set(finding) - {"read_model", "aggregate_id", "outcome", "reason", "fields"} == {
        *("detail", "version", "event_id", "first_seen", "age_seconds")
    }
    assert finding["event_id"] == {"$oid": str(event["_id"])}


def test_json_of_an_error_is_one_document_too(cli: Cli, known: list[str]) -> None:
    result = cli("rebuild-readmodel", "--type", "chat", "--id", NOBODY, "--dry-run", "--json")
    document = json.loads(result.stdout)
    assert set(document) == {"verb", "error"}
    assert document["verb"] == "dry_run"
    assert set(document["error"]) == {"code", "message", "hint"}
    assert document["error"]["code"] == "aggregate_not_found"
    assert result.exit_code == 1
    assert f"neither an event nor a document for {NOBODY}" in result.stderr


def test_findings_are_capped_and_counts_are_not(database: Mongo, cli: Cli, known: list[str]) -> None:
    database.chats_read_model.delete_many({})
    result = cli("verify-consistency", "--type", "chat", "--all", "--json", "--max-findings", 3)
    document = json.loads(result.stdout)
    assert len(document["findings"]) == 3
    assert document["read_models"]["chats_read_model"]["missing"] == len(known)
    assert "and 7 more" in cli("verify-consistency", "--type", "chat", "--all", "--max-findings", 3).stdout
    database.tasks_read_model.update_many({}, {"$set": {"title": "broken"}})
    # None of the read models hides the other.
    both = json.loads(cli("verify-consistency", *EVERYTHING, "--json", "--max-findings", 4).stdout)["findings"]
    assert Counter(item["read_model"] for item in both) == {"chats_read_model": 2, "tasks_read_model": 2}
    said = cli("rebuild-readmodel", *EVERYTHING, "--max-findings", 4, "--dry-run").stdout
    assert [said.count(f"\n{name}  ") for name in ("chats_read_model", "tasks_read_model")] == [2, 2]


def test_data_cannot_command_the_terminal(database: Mongo, cli: Cli, known: list[str]) -> None:
    database.chats_read_model.update_one({"chat_id": known[0]}, {"$set": {"title": "\x1b[2J\x9b31m\u202e"}})
    result = cli("verify-consistency", "--type", "chat", "--all")
    assert not {"\x1b", "\x9b", "\u202e"} & set(result.stdout)
    assert "\\x9b31m" in result.stdout


def test_on_a_terminal_a_bar_shows_the_rate_and_stdout_stays_clean(env: dict[str, str], known: list[str]) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "verify-consistency", *EVERYTHING, "--json"],
        env=env | {"TERM": "xterm", "COLUMNS": "160"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    stdout, _ = process.communicate(timeout=240)
    shown = b""
    while select.select([ours], [], [], 0.2)[0]:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # Linux ends a terminal that nobody holds any more with EIO.
            break
    os.close(ours)
    assert json.loads(stdout)["verb"] == "verify"
    assert b"events/s" in shown


def test_quiet_says_nothing_but_the_result(cli: Cli, known: list[str]) -> None:
    work = ("repair-queue", "work", "--id", "nobody")
    loud, quiet = cli(*work), cli("--quiet", *work)
    assert (loud.exit_code, quiet.exit_code) == (1, 1)
    assert "not open" in loud.stderr
    assert (quiet.stdout, quiet.stderr) == (loud.stdout, "")


def test_a_doctor_that_finds_no_problem_says_nothing_when_it_shall_be_quiet(cli: Cli, known: list[str]) -> None:
    assert cli("ensure-indexes").exit_code == 0
    quiet = cli("doctor", "--quiet")
    # Not even an empty line: cron would mail it.
    assert (quiet.exit_code, quiet.output) == (0, "")


def test_verbose_says_settings_servers_commands_and_times_and_no_secret(env: dict[str, str], known: list[str]) -> None:
    secret = {"READMODEL_DAGSTER_URL": "http://ann:s3cret@h"}
    command = [*PROGRAM, "verify-consistency", *EVERYTHING, "--json", "-v"]
    result = subprocess.run(command, env=env | secret, capture_output=True, text=True, check=False, timeout=240)
    assert json.loads(result.stdout)["verb"] == "verify"
    assert f"READMODEL_DATABASE={env['READMODEL_DATABASE']}\n" in result.stderr
    assert "READMODEL_TASK_SOURCE=chat  (default)" in result.stderr
    assert "READMODEL_DAGSTER_URL=http://h\n" in result.stderr
    assert "mongodb-27017.sock: RSPrimary of replica set" in result.stderr
    assert re.search(r"^  find +\d+ +\d+\.\d{3} s  slowest", result.stderr, re.MULTILINE)
    assert "s3cret" not in result.stderr


def test_commands_that_prepare_have_their_documents_too(cli: Cli, known: list[str], tmp_path: Path) -> None:
    (tmp_path / "events.jsonl.gz").write_bytes(gzip.compress(b'{"_id": 1, "aggregate_id": "a", "version": 1}'))
    loaded = json.loads(cli("load", tmp_path, "--json").stdout)
    assert loaded["files"] == [{"file": "events.jsonl.gz", "collection": "events", "inserted": 1, "present": 0}]
    made = json.loads(cli("ensure-indexes", "--json").stdout)["made"]
    assert set(made) >= {"events", "chats_read_model", "repair_queue"}
    status = json.loads(cli("--json", "server", "status").stdout)
    assert {"verb", "running", "uri", "data_dir", "pid", "version"} == set(status)


# The other commands


def test_server_says_that_the_embedded_server_is_not_used_when_a_uri_is_set(cli: Cli, tmp_path: Path) -> None:
    assert cli("server", "start").exit_code == 2
    for command in ("start", "status"):
        assert "the embedded server is not used" in cli("server", command).stderr


def test_server_status_and_stop_of_a_server_that_never_ran(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("READMODEL_MONGODB_URI")
    monkeypatch.setenv("READMODEL_DATA_DIR", "/tmp/readmodel-no-such-folder")  # noqa: S108 - never made
    status = cli("server", "status")
    assert status.exit_code == 0
    assert [line.split()[0] for line in status.stdout.splitlines()] == ["running", "uri", "data", "pid", "version"]
    assert "running   no" in status.stdout
    stop = cli("server", "stop")
    assert (stop.exit_code, stop.stdout) == (0, "No embedded server was running.\n")
    assert not Path("/tmp/readmodel-no-such-folder").exists()  # noqa: S108


# Reports: the files that `verify-consistency --report` writes


def test_a_json_report_is_the_json_document(cli: Cli, damaged: str, tmp_path: Path) -> None:
    file = tmp_path / "report.JSON"
    file.write_text("an older report")
    result = cli("verify-consistency", *EVERYTHING, "--report", file, "--json")
    assert result.exit_code == 1
    report, document = json.loads(file.read_text()), json.loads(result.stdout)
    assert document.pop("reports") == [str(file)]
    assert report.pop("database")
    assert report.pop("mend")[0]["command"] == "readmodel rebuild-readmodel --type chat --all"
    assert report["findings"][0].pop("mend") == f"readmodel rebuild-readmodel --type chat --id {damaged}"
    assert report.pop("why")[0].startswith("chats_read_model: 1 of 1 documents was")
    assert report.pop("lost_over_time") == []
    assert report == document
    assert [path.name for path in tmp_path.iterdir()] == ["report.JSON"]


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


# What starting costs


def test_help_imports_nothing_heavy_and_a_rebuild_no_dagster(env: dict[str, str], known: list[str]) -> None:
    program = (
        "import sys\n"
        "from readmodel_pipelines.cli.main import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit as ending: assert ending.code == 0\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)\n"
    )
    imported = {}
    for arguments in (["rebuild-readmodel", "--help"], ["rebuild-readmodel", "--type", "all", "--id", known[0]]):
        command = [sys.executable, "-c", program, *arguments]
        result = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        imported[arguments[1]] = set(result.stderr.split())
    assert "typer" in imported["--help"]
    assert not imported["--help"] & {"bson", "dagster", "numpy", "pandas", "pydantic_settings", "pymongo", "rich"}
    assert "pymongo" in imported["--type"]
    assert not imported["--type"] & {"dagster", "numpy", "pandas", "rich"}


@pytest.mark.parametrize("form", [{}, {"state": 5, "started_at": "soon", "read_models": "\x1b[2J", "strategy": "a\nb"}])
def test_a_record_of_a_rebuild_that_is_none_is_told_and_hides_no_other(
    database: Mongo, cli: Cli, form: dict[str, Any]
) -> None:
    database.readmodel_rebuilds.insert_one({"_id": "odd\nAll is well.", "kind": "rebuild", **form})
    for arguments, code in ((("list",), 0), (("show", "odd\nAll is well."), 0), (("abort", "odd\nAll is well."), 2)):
        result = cli("rebuilds", *arguments)
        assert result.exit_code == code, result.exception
        told = (result.stdout + result.stderr).splitlines()
        assert "All is well." not in told
        assert all(line.isprintable() for line in told)
