"""How a command is made: it is registered with its help, what it gives is its exit code, and what it raises is told.

Errors that a person meets become a sentence, what to do, and an exit code; no traceback and no credentials. With
`--json` the same is also one document on stdout. A bug keeps its traceback.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import typer

from readmodel_pipelines.cli.terminal.voice import OutputLost, complain, voice
from readmodel_pipelines.errors import MongoFailed, MongoUnavailable, ReadModelError, UsageError

if TYPE_CHECKING:
    from readmodel_pipelines.mongo.driver import Database
    from readmodel_pipelines.settings import Settings

# Where nobody knows more: most often nothing was begun.
_AT_LEAST = {
    "rebuild": "Interrupted: what was written is right and stays.",
    "repair": "Interrupted: tasks that were done are completed, the others are in the queue again.",
    "verify": "Interrupted. No read model was changed.",
    "ensure_indexes": "Interrupted: the server goes on making the index that it was at.",
    "rollback": "Interrupted: what is back is back; only the same again catches up with the events since then.",
    "start": "Interrupted: a server that was starting is ended; `readmodel server status` makes sure.",
    "stop": "Interrupted: the server ends by itself if it was asked to already.",
}

_CREDENTIALS = re.compile(r"(?<=://)\S*@")
_LONGEST = 500

_Given = ParamSpec("_Given")


class Interrupted(ReadModelError):
    """Ctrl-C or SIGTERM ended the command. `done` has the completed work."""

    exit_code = 130

    def __init__(self, message: str, *, hint: str = "", done: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.done = done or {}


def again(*more: str) -> str:
    """The command that was typed, and what to add to it to go on."""
    return shlex.join(["readmodel", *voice.typed, *(item for item in more if item not in voice.typed)])


def command(
    app: typer.Typer, name: str, short_help: str, *, heading: str | None = None, verb: str = ""
) -> Callable[[Callable[_Given, int | None]], Callable[_Given, None]]:
    """Make a function a command: True and None are success, False is exit code 1, a number is the code.

    `verb` is what documents call it; its name if not given.
    """

    def register(work: Callable[_Given, int | None]) -> Callable[_Given, None]:
        @app.command(name, short_help=short_help, rich_help_panel=heading)
        @wraps(work)
        def run(*args: _Given.args, **kwargs: _Given.kwargs) -> None:
            with in_words(verb or name.replace("-", "_")):
                ended = work(*args, **kwargs)
            code = 0 if ended is None else int(not ended) if isinstance(ended, bool) else ended
            raise typer.Exit(code)

        return run

    return register


@contextmanager
def in_words(verb: str) -> Iterator[None]:
    """Turn what a person can cause or must act on into words and an exit code."""
    found: ReadModelError
    try:
        with _explained(verb):
            yield
        return
    except ReadModelError as ending:
        found = ending
    except KeyboardInterrupt:
        found = Interrupted(_AT_LEAST.get(verb, "Interrupted: nothing was changed."), hint=f"Again: {again()}")
    # Evaluated only when an error comes this far, so that help and usage errors need no driver.
    except _driver_error() as error:
        found = _of_driver(error)
    complain(str(found))
    told = {"verb": verb, "error": {"code": found.code, "message": found.message, "hint": found.hint}}
    done = {"done": found.done} if isinstance(found, Interrupted) and found.done else {}
    with suppress(OutputLost):
        voice.document(told | done)
    raise typer.Exit(found.exit_code)


@contextmanager
def opened(role: str) -> Iterator[tuple[Database, Settings]]:
    """The database of the settings, for a user of that role, and the settings."""
    from readmodel_pipelines.mongo.connection import open_database
    from readmodel_pipelines.settings import load_settings

    settings = load_settings()
    with open_database(settings, role, tell=voice.note) as database:
        yield database, settings


def _explained(verb: str) -> AbstractContextManager[None]:
    if voice.verbose and voice.quiet:
        raise UsageError("--quiet and --verbose were given; one asks for less, the other for more.", hint="Give one.")
    if not voice.verbose:
        return nullcontext()
    from readmodel_pipelines.cli.terminal.verbose import explained

    # The doctor shows them itself: they are a part of what it was asked for.
    return explained(with_settings=verb != "doctor")


def _driver_error() -> type[Exception]:
    from readmodel_pipelines.mongo.driver import PyMongoError

    return PyMongoError


def _of_driver(error: Any) -> ReadModelError:
    """What a connection did not tell in words already."""
    from readmodel_pipelines.mongo.driver import ConnectionFailure

    message = f"MongoDB: {_CREDENTIALS.sub('', str(error))[:_LONGEST]}"
    kind = MongoUnavailable if isinstance(error, ConnectionFailure) else MongoFailed
    return kind(message, hint="Check READMODEL_MONGODB_URI, the server and the user's roles.")
