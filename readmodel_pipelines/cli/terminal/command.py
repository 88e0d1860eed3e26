"""Turns a function into a command: registers it with its help, and converts its result and errors into exit codes.

An error that a person can fix becomes a sentence, a hint and an exit code, without traceback and credentials. With
`--json` it is also one document on stdout. A bug keeps its traceback.
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

# Used when the command itself does not know more; mostly nothing had begun.
_AT_LEAST = {
    "rebuild": "Interrupted. The documents written so far are correct and stay.",
    "repair": "Interrupted. Finished tasks are completed; the others are in the queue again.",
    "verify": "Interrupted. No read model was changed.",
    "ensure_indexes": "Interrupted. The server still creates the index that it had begun.",
    "rollback": "Interrupted during the rollback. Run the same command again to apply the events recorded since.",
    "start": "Interrupted. A server that was starting is stopped; `readmodel server status` shows it.",
    "stop": "Interrupted. If the server was already asked to stop, it stops.",
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
    """The typed command line, with `more` options added."""
    return shlex.join(["readmodel", *voice.typed, *(item for item in more if item not in voice.typed)])


def command(
    app: typer.Typer, name: str, short_help: str, *, heading: str | None = None, verb: str = ""
) -> Callable[[Callable[_Given, int | None]], Callable[_Given, None]]:
    """Make a function a command: True and None mean success, False exit code 1, and a number is the exit code.

    `verb` is its name in JSON documents; by default its own name.
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
    """Turn an error that a person can cause or fix into a sentence, a hint and an exit code."""
    found: ReadModelError
    try:
        with _explained(verb):
            yield
        return
    except ReadModelError as ending:
        found = ending
    except KeyboardInterrupt:
        found = Interrupted(_AT_LEAST.get(verb, "Interrupted. Nothing was changed."), hint=f"Run again: {again()}")
    # Evaluated only if an error gets this far, so that help and usage errors need no driver.
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
    """The open database of the settings, with the rights of a role, and the settings."""
    from readmodel_pipelines.mongo.connection import open_database
    from readmodel_pipelines.settings import load_settings

    settings = load_settings()
    with open_database(settings, role, tell=voice.note) as database:
        yield database, settings


def _explained(verb: str) -> AbstractContextManager[None]:
    if voice.verbose and voice.quiet:
        raise UsageError(
            "Both --quiet and --verbose were given, and they contradict each other.", hint="Give only one."
        )
    if not voice.verbose:
        return nullcontext()
    from readmodel_pipelines.cli.terminal.verbose import explained

    # The doctor shows the settings itself.
    return explained(with_settings=verb != "doctor")


def _driver_error() -> type[Exception]:
    from readmodel_pipelines.mongo.driver import PyMongoError

    return PyMongoError


def _of_driver(error: Any) -> ReadModelError:
    """An error of the driver as one of this project's errors."""
    from readmodel_pipelines.mongo.driver import ConnectionFailure

    message = f"MongoDB: {_CREDENTIALS.sub('', str(error))[:_LONGEST]}"
    kind = MongoUnavailable if isinstance(error, ConnectionFailure) else MongoFailed
    return kind(message, hint="Check READMODEL_MONGODB_URI, the server and the user's roles.")
