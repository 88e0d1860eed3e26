"""The pages are held to the code and to each other: links, commands and their options, settings with their defaults."""

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from readmodel_pipelines.cli.main import app
from readmodel_pipelines.events.stream import Reason
from readmodel_pipelines.rebuild_state import MAY_FOLLOW, RebuildState
from readmodel_pipelines.reconcile.cause import CauseKind
from readmodel_pipelines.reconcile.outcome import Outcome
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.pages.blocks import (
    PAGES,
    ROOT,
    anchors_of,
    blocks_of,
    links_of,
    name_of,
    prose_of,
)
from readmodel_pipelines_tests.support.pages.from_code import made_anew, pages_with_parts

SETTINGS = (ROOT / "readmodel_pipelines" / "docs" / "settings.md").read_text(encoding="utf-8")
README = ROOT / "README.md"
NOT_SHELL = {"", "dockerfile", "ini", "json", "nginx", "python", "text", "yaml"}
NOT_SETTINGS = {"READMODEL_CORPUS", "READMODEL_BROKER"}
"""Read by the tests, and by a Celery worker's own configuration."""

COMMANDS: Any = typer.main.get_command(app)

each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


@each_page
def test_every_link_and_image_leads_somewhere(page: Path) -> None:
    lost = []
    for line, link in links_of(page):
        path, _, anchor = link.partition("#")
        if not re.match(r"[a-z]+:", link):
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (anchor and anchor not in anchors_of(target)):
                lost.append(f"{name_of(page)}:{line}: {link}")
    assert lost == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached, new = set(), {README}
    while new:
        reached |= new
        links = {(page.parent / link.partition("#")[0]).resolve() for page in new for _, link in links_of(page)}
        new = {link for link in links if link in PAGES} - reached
    assert [name_of(page) for page in PAGES if page not in reached] == []


def commands_on(page: Path) -> Iterator[tuple[int, list[str]]]:
    """Every `readmodel …` on the page, in blocks and in the text."""
    for block in blocks_of(page, "sh"):
        for number, line in enumerate(block.code.splitlines(), start=block.line):
            yield from ((number, words) for words in _commands_in(line))
    for number, line in prose_of(page):
        for span in re.findall(r"`([^`]+)`", line):
            yield from ((number, words) for words in _commands_in(span))


def _commands_in(text: str) -> Iterator[list[str]]:
    for found in re.finditer(r"(?:^|[\s(=])readmodel ([^|&;<>()]*)", text):
        words = shlex.split(found[1], comments=True)
        # A program is what is followed by a command or an option of its own.
        if words and re.fullmatch(r"--?[a-z-]+|[a-z][a-z-]+|COMMAND", words[0]):
            yield words


def wrong_with(words: list[str]) -> str:
    command = COMMANDS
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if words[0] == "COMMAND":
            return ""
        if words[0] not in command.commands:
            return f"no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    known = {option for param in command.params for option in param.opts} | {"--help", "-h"}
    return ", ".join(f"no option {word}" for word in words if word.startswith("-") and word.split("=")[0] not in known)


@each_page
def test_every_command_and_its_options_exist(page: Path) -> None:
    wrong = [f"{name_of(page)}:{line}: {said}" for line, words in commands_on(page) if (said := wrong_with(words))]
    assert wrong == []


@each_page
def test_every_option_in_the_text_exists(page: Path) -> None:
    groups, known = [COMMANDS], {"--help"}
    for command in groups:
        known |= {option for param in command.params for option in param.opts}
        groups += getattr(command, "commands", {}).values()
    named = [(line, option) for line, text in prose_of(page) for option in re.findall(r"`(--[a-z-]+)", text)]
    assert [f"{name_of(page)}:{line}: {option}" for line, option in named if option not in known] == []


@each_page
def test_every_setting_that_is_named_exists(page: Path) -> None:
    known = {f"READMODEL_{name.upper()}" for name in Settings.model_fields} | NOT_SETTINGS
    named = set(re.findall(r"READMODEL_[A-Z_]*[A-Z]\b(?!_?…)", page.read_text(encoding="utf-8")))
    assert sorted(named - known) == []


@each_page
def test_what_is_typed_into_a_shell_is_tagged_so_that_it_is_run(page: Path) -> None:
    for block in blocks_of(page):
        assert block.tag in NOT_SHELL | {"sh"}, f"{block}: nobody knows the tag {block.tag}"
        if block.tag != "sh":
            typed = re.findall(r"^(?:\$ |(?:readmodel|dagster|make|pip|export) ).*", block.code, flags=re.MULTILINE)
            assert typed == [], f"{block}: tag it sh, and it is run"


@pytest.mark.parametrize("page", pages_with_parts(), ids=name_of)
def test_what_a_page_has_from_the_code_is_as_the_code_is_now(page: Path) -> None:
    # `python -m readmodel_pipelines_tests.support.pages.from_code` writes it.
    assert page.read_text(encoding="utf-8") == made_anew(page)


@pytest.mark.parametrize(
    ("page", "closed_set"),
    [
        ("DATA_CONTRACT.md", Reason),
        ("docs/verifying.md", Outcome),
        ("docs/verifying.md", CauseKind),
        ("docs/rebuilding.md", {*MAY_FOLLOW} - {RebuildState.INTERRUPTED, RebuildState.PAUSED}),
    ],
)
def test_every_member_of_a_closed_set_is_on_its_page(page: str, closed_set: Iterable[str]) -> None:
    text = (ROOT / "readmodel_pipelines" / page).read_text(encoding="utf-8")
    assert [member for member in closed_set if f"`{member}`" not in text] == []


def test_the_defaults_in_the_table_are_those_of_the_settings() -> None:
    documented = dict(re.findall(r"^\| `READMODEL_(\w+)` \| `([^`]+)` \|", SETTINGS, flags=re.MULTILINE))
    defaults = {name.upper(): field.default for name, field in Settings.model_fields.items()}
    assert documented
    assert documented == {name: str(defaults[name]) for name in documented}


def test_what_the_readme_says_of_make_is_what_ci_runs() -> None:
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert {"make lint", "make test"} <= set(run)
