"""Commands that messages name in backticks run as they stand: each is parsed by the command line itself."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from readmodel_pipelines.cli import main
from readmodel_pipelines_tests.support.pages.blocks import ROOT

PACKAGE = ROOT / "readmodel_pipelines"
COMMAND = re.compile(r"`readmodel ([^`…]+)`")
ID = "058d54c8-4bb2-4626-af84-652c580962b2"
STANDS_FOR = {
    "{what}": f"--type all --id {ID}",
    "{strategy}": " --strategy shadow",
    "{name}": "chat",
    "{of}": "chat",
    "{projection.name}": "chat",
    "{config.aggregate_type}": "chat",
    "{aggregate_type}": "chat",
    "{aggregate_id}": ID,
    "{role}": "read_only",
    "ROLE": "read_only",
}
# Of these exactly one is wanted, which the command itself asks for.
ONE_OF = {"requeue": {"--id", "--reason", "--all-failed"}, "rebuild-readmodel": {"--id", "--all"}}
GROUPS = {"server", "leases", "rebuilds", "repair-queue", "findings"}


def _texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every text of a file, those that are put together with `{…}` for what is put in."""
    parts: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts.update(map(id, node.values))
            whole = "".join(
                str(item.value) if isinstance(item, ast.Constant) else f"{{{ast.unparse(item.value)}}}"
                for item in node.values
                if isinstance(item, ast.Constant | ast.FormattedValue)
            )
            yield node.lineno, whole
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.lineno, node.value


def named_commands() -> Iterator[tuple[str, str]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        for line, text in _texts(ast.parse(file.read_text(encoding="utf-8"))):
            for found in COMMAND.findall(text):
                yield f"{file.relative_to(ROOT)}:{line}", " ".join(found.split())


def parsed(words: list[str]) -> str:
    """The name of the command that takes these words.

    Raises:
        click.UsageError: none does.
    """
    command: Any = get_command(main.app)
    context = command.make_context("readmodel", list(words))
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
    return str(context.info_name)


@pytest.mark.parametrize(
    ("place", "typed"), [pytest.param(*item, id=f"{item[0]} {item[1]}") for item in named_commands()]
)
def test_a_command_that_a_message_names_can_be_typed_as_it_stands(place: str, typed: str) -> None:
    for text, meaning in STANDS_FOR.items():
        typed = typed.replace(text, meaning)
    words = shlex.split(re.sub(r"\{[^}]*\}", "x", typed))
    if words[0] in GROUPS and len(words) == 1:
        pytest.fail(f"{place}: {typed} is no command, but a group of them")
    name = parsed(words)
    assert name not in ONE_OF or len(ONE_OF[name].intersection(words)) == 1, f"{place}: {typed}"


def test_there_are_such_commands() -> None:
    assert len(list(named_commands())) > 50
    assert Path(PACKAGE).is_dir()
