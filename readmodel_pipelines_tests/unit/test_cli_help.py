"""Help reads as a map, completion knows what options take, and every command takes --quiet, --verbose and --json."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from readmodel_pipelines.cli.terminal.help import ENDING, HEADINGS, MEND, REBUILDS
from readmodel_pipelines_tests.support.verbs.command_line import COMMANDS, readmodel

COMPLETE = (
    "import sys\n"
    "from readmodel_pipelines.cli.main import app\n"
    "try: app(prog_name='readmodel')\n"
    "finally: print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)\n"
)
HEAVY = {"bson", "dagster", "pandas", "pydantic_settings", "pymongo", "rich"}


def sections(text: str) -> dict[str, list[str]]:
    """The lines below each heading."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if re.fullmatch(r"\S.*:", line):
            found[line[:-1]] = []
        elif found and line.strip():
            found[list(found)[-1]].append(line.strip())
    return found


def test_help_is_a_map_of_every_command_under_a_heading_with_a_line_that_says_what_it_does() -> None:
    said = readmodel("--help").stdout
    found = sections(said)
    told = [line for heading in HEADINGS for line in found[heading]]
    assert {tuple(re.split(r"  +", line)[0].split()) for line in told} == set(COMMANDS)
    assert len(told) == len(COMMANDS), "a line each"
    assert max(map(len, said.splitlines())) <= 80
    assert "rebuild-readmodel" in found[MEND][0]
    assert {line.split()[1] for line in found[REBUILDS]} == {"list", "show", "abort", "rollback"}


def test_help_ends_with_where_to_start_settings_and_exit_codes() -> None:
    found = sections(readmodel("--help").stdout)
    assert list(found)[-len(ENDING) :] == list(ENDING)
    starts = [start for _, text in ENDING["Where to start"] for start in re.split(r", then |; ", text)]
    for start in starts:
        words = tuple(word for word in start.split() if not word.startswith("-"))
        assert words[:1] in COMMANDS or words[:2] in COMMANDS, f"there is no command {start!r}"
    assert [line.split()[0] for line in found["Exit codes"]] == ["0", "1", "2", "3", "4", "5", "6", "130", "141"]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_takes_quiet_verbose_and_json(words: tuple[str, ...]) -> None:
    taken = [option for parameter in COMMANDS[words].params for option in parameter.opts]
    assert {"--quiet", "-q", "--verbose", "-v", "--json"} <= set(taken)
    assert len(taken) == len(set(taken)), "an option is declared twice"


@pytest.mark.parametrize(
    "arguments",
    [
        ("rebuild-readmodel", "--tipe", "chat", "--json"),
        ("--json", "rebuild-readmodel", "--all"),
        ("repair-queue", "--json", "nonsense"),
        ("--no-such-option", "--json", "rights"),
        ("repair-queue", "purge", "--json", "--status", "pending"),
    ],
)
def test_with_json_a_command_that_makes_no_sense_is_told_in_a_document(arguments: tuple[str, ...]) -> None:
    result = readmodel(*arguments)
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["code"] == "usage"
    assert result.stderr


def test_the_version_is_told() -> None:
    told = readmodel("--version")
    assert (told.exit_code, bool(re.fullmatch(r"readmodel \S.*\n", told.stdout))) == (0, True)
    assert json.loads(readmodel("--version", "--json").stdout)["version"] in told.stdout


def test_what_one_command_was_told_about_its_voice_is_forgotten_by_the_next() -> None:
    assert json.loads(readmodel("--json", "rights").stdout)["verb"] == "rights"
    assert not readmodel("rights").stdout.startswith("{")


def test_quiet_and_verbose_together_are_refused() -> None:
    result = readmodel("-q", "rights", "-v")
    assert result.exit_code == 2
    assert "--quiet and --verbose" in result.stderr


def completions(line: str, shell: str) -> tuple[list[str], set[str]]:
    """What completion offers at the end of a line, as the shell asks for it, and what was imported for that."""
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    # Nothing answers there: completion asks no server.
    env = os.environ | asked | {"_READMODEL_COMPLETE": f"complete_{shell}", "READMODEL_MONGODB_URI": "mongodb://h:1"}
    result = subprocess.run([sys.executable, "-c", COMPLETE], env=env, capture_output=True, text=True, check=False)
    offered = re.findall(r'"([\w-]+)"' if shell == "zsh" else r"(?m)^([\w-]+)", result.stdout)
    return offered, set(result.stderr.split())


@pytest.mark.parametrize(
    ("line", "shell", "offered"),
    [
        ("readmodel re", "bash", ["rebuild-readmodel", "reports", "repair-queue", "rebuilds"]),
        ("readmodel hi", "bash", ["history"]),
        ("readmodel history --type ", "bash", ["chat", "task", "all"]),
        ("readmodel history --f", "bash", ["--field"]),
        ("readmodel rebuild-readmodel --type ", "bash", ["chat", "task", "all"]),
        ("readmodel rebuild-readmodel --strategy ", "zsh", ["in_place", "shadow"]),
        ("readmodel verify-consistency --tier v", "fish", ["versions"]),
        ("readmodel repair-queue list --status ", "bash", ["pending", "processing", "completed", "failed"]),
        ("readmodel rebuilds show --q", "bash", ["--quiet"]),
    ],
)
def test_a_shell_completes_commands_and_what_options_take(line: str, shell: str, offered: list[str]) -> None:
    found, imported = completions(line, shell)
    assert found == offered
    assert not imported & HEAVY


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_shown_and_installed(shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    # There is no shell to detect where tests run: Typer then takes its name.
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    monkeypatch.setattr("typer.testing._get_command", get_command)
    shown = readmodel("--show-completion", shell)
    installed = readmodel("--install-completion", shell)
    assert (shown.exit_code, installed.exit_code) == (0, 0)
    files = [file for file in tmp_path.rglob("*") if file.is_file() and "_READMODEL_COMPLETE" in file.read_text()]
    assert [file.read_text().strip() for file in files] == [shown.stdout.strip()]
