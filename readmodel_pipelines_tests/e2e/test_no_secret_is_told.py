"""A password is told nowhere: not by any command that fails, not in what Dagster keeps of a run that fails."""

import gzip
import json
from pathlib import Path
from urllib.parse import quote, quote_plus

import dagster as dg
import pytest

from readmodel_pipelines_tests.support.servers.authorized import AuthorizedServer
from readmodel_pipelines_tests.support.verbs.command_line import COMMANDS, NOBODY, readmodel
from readmodel_pipelines_tests.support.verbs.dagster_runs import CHATS, Dagster, sentence

BEGINNING, END = "Zq7Jx", "k9WvB"
PASSWORD = f"{BEGINNING}@:/?#%41&= ü'\"${END}"
# However it is escaped, one of its ends stays as it is.
FORMS = (PASSWORD, quote_plus(PASSWORD), quote(PASSWORD, safe=""), json.dumps(PASSWORD)[1:-1], BEGINNING, END)

WITH = {
    "verify-consistency": ["--all"],
    "rebuild-readmodel": ["--all"],
    "repair-queue work": ["--once"],
    "repair-queue requeue": ["--all-failed"],
    "repair-queue purge": ["--yes"],
    "rebuilds rollback": ["--yes"],
    "metrics": ["--once", "--timeout", "0.2"],
    "demo": ["--no-ui"],
    "findings ignore": ["--id", NOBODY],
    # Of no machine: it would serve for ever.
    "reports": ["--host", "203.0.113.1"],
}
REQUIRED = {"read_model": "all", "status": "failed", "aggregate_id": NOBODY, "until": "2999-12-31"}
NEEDS_NO_DATABASE = {"reports", "rights", "metrics", "demo", "server start", "server stop", "server status"}
NOBODY_ANSWERS = f"mongodb://somebody:{quote_plus(PASSWORD)}@127.0.0.1:1/?serverSelectionTimeoutMS=50"
CANNOT_BE_READ = f"mongodb://somebody:{PASSWORD}@127.0.0.1:1/"
NO_SUCH_KEY = (
    "mongodb://127.0.0.1:1/?tls=true&tlsCertificateKeyFile=/no/such/key"
    f"&tlsCertificateKeyFilePassword={quote_plus(PASSWORD).replace('%40', '@')}"
)


def told_in(said: bytes) -> list[str]:
    return [form for form in FORMS if form.encode() in said]


def arguments(words: tuple[str, ...], folder: Path) -> list[str]:
    """What the command cannot do without."""
    given = [*words]
    for parameter in COMMANDS[words].params:
        if parameter.required:
            option = [parameter.opts[0]] if parameter.param_type_name == "option" else []
            given += [*option, REQUIRED.get(parameter.name, str(folder))]
    return [*given, *WITH.get(" ".join(words), [])]


@pytest.fixture
def reasons_to_fail(authorized: AuthorizedServer) -> dict[str, tuple[str, int]]:
    """Connection strings with the password, and how a command ends that needs a database."""
    return {
        "wrong password": (authorized.uri_of("administrator", PASSWORD), 3),
        "no right": (authorized.user_with([], PASSWORD), 3),
        "nobody answers": (NOBODY_ANSWERS, 3),
        "cannot be read": (CANNOT_BE_READ, 2),
        "no such key": (NO_SUCH_KEY, 2),
    }


def test_no_command_tells_the_password_however_it_fails(
    reasons_to_fail: dict[str, tuple[str, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("READMODEL_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "events.jsonl.gz").write_bytes(gzip.compress(b""))
    for reason, (uri, code) in reasons_to_fail.items():
        monkeypatch.setenv("READMODEL_MONGODB_URI", uri)
        for words in COMMANDS:
            name = " ".join(words)
            # The driver takes half a second to give up, and all commands connect the same way.
            if reason == "nobody answers" and name not in ("doctor", "repair-queue work", "metrics"):
                continue
            ended = safe_exit_code((reason, name), arguments(words, tmp_path))
            if name not in NEEDS_NO_DATABASE:
                # The doctor goes on without rights, and tells that they are lacking.
                assert ended == (1 if (reason, name) == ("no right", "doctor") else code), (reason, name)
    assert told_in("".join(capfd.readouterr()).encode()) == []


def test_no_command_that_launches_a_run_tells_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("READMODEL_MONGODB_URI", NOBODY_ANSWERS)
    monkeypatch.setenv("READMODEL_DAGSTER_URL", f"http://somebody:{quote_plus(PASSWORD)}@127.0.0.1:1/")
    launching = [words for words, command in COMMANDS.items() if "launch" in {item.name for item in command.params}]
    assert len(launching) == 3
    for words in launching:
        assert safe_exit_code(words, [*arguments(words, tmp_path), "--launch"]) not in (0, 2)


def safe_exit_code(about: object, arguments: list[str]) -> int:
    """How the command ended, once it is clear that it told no password and no bug."""
    result = readmodel(*arguments, "--verbose", "--json")
    assert isinstance(result.exception, SystemExit | None), (about, result.exception)
    assert told_in(result.output.encode()) == [], about
    return result.exit_code


def test_neither_log_nor_storage_of_dagster_hold_the_password_of_runs_that_failed(
    reasons_to_fail: dict[str, tuple[str, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    said = {}
    with dg.DagsterInstance.local_temp(str(tmp_path)) as on_disk:
        dagster = Dagster(on_disk)
        for reason, (uri, _) in reasons_to_fail.items():
            monkeypatch.setenv("READMODEL_MONGODB_URI", uri)
            said[reason] = sentence(dagster.run("verify_read_models", "chat"))
        assert "cannot be used" in sentence(dagster.materialize(CHATS))
    assert "authentication failed" in said["wrong password"]
    assert "may not" in said["no right"]
    assert "does not answer" in said["nobody answers"]
    assert "cannot be used" in said["cannot be read"]
    assert "cannot be used" in said["no such key"]
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"authentication failed" in kept, "the runs are in there"
    assert told_in(kept) == []
    shown = "".join(capfd.readouterr())
    assert "authentication failed" in shown
    assert told_in(shown.encode()) == []
