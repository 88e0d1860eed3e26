"""The command line on a test's database: the fixtures of its tests, which `conftest.py` makes known."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from readmodel_pipelines.cli import main
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.environment import name_database
from readmodel_pipelines_tests.support.scene import Mongo, make_right

Cli = Callable[..., Result]

EVERYTHING = ("--type", "all", "--all")
NOBODY = "00000000-0000-4000-8000-000000000000"


def readmodel(*arguments: object) -> Result:
    """Within this process: fast."""
    return CliRunner().invoke(main.app, [str(item) for item in arguments], prog_name="readmodel")


def _commands(group: Any, *before: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, *before, name)
        else:
            yield (*before, name), command


COMMANDS = dict(_commands(get_command(main.app)))
"""Every command by the words that call it."""


@pytest.fixture
def env(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of commands on this test's database, for this process and for child processes."""
    name_database(monkeypatch, settings)
    return dict(os.environ)


@pytest.fixture
def cli(env: dict[str, str]) -> Cli:
    return readmodel


@pytest.fixture
def known(database: Mongo, settings: Settings) -> list[str]:
    """The ids of ten chats with healthy read models."""
    events = list(chat_events(10, seed=3, mean_events=8))
    database.events.insert_many(events)
    make_right(database, settings)
    return sorted({event["aggregate_id"] for event in events})


@pytest.fixture
def damaged(database: Mongo, known: list[str]) -> str:
    """The id of one of them, whose title and participants are wrong."""
    database.chats_read_model.update_one(
        {"chat_id": known[4]}, {"$set": {"title": "wrong"}, "$unset": {"is_public": ""}}
    )
    return known[4]
