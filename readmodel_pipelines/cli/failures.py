"""Failures in words: every error that a person meets becomes a sentence, what to do, and an exit code.

No traceback and no credentials; with `--json` the same also as one document on stdout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from readmodel_pipelines.errors import MongoUnavailable, ReadModelError

INTERRUPTED = 130

_CREDENTIALS = re.compile(r"(?<=://)\S*@")
_NOT_LET_IN = {13, 18, 8000}
_LONGEST = 500


@contextmanager
def in_words(verb: str | None = None, *, as_json: bool = False) -> Iterator[None]:
    """Turn what a person can cause or must act on into words and an exit code; a bug keeps its traceback."""
    try:
        yield
    except ReadModelError as error:
        found = error
    except KeyboardInterrupt:
        _say(verb, as_json, "interrupted", _interrupted(verb), "")
        raise typer.Exit(INTERRUPTED) from None
    # Evaluated only when an error comes this far, so that help and usage errors need no driver.
    except _driver_error() as error:
        found = _of_driver(error)
    else:
        return
    _say(verb, as_json, found.code, found.message, found.hint)
    raise typer.Exit(found.exit_code)


def note(text: str) -> None:
    """A line on stderr."""
    typer.echo(plain(text), err=True)


def plain(text: str) -> str:
    """The text without anything that a terminal would obey: data may hold control characters."""
    return "".join(char if char.isprintable() or char == "\n" else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def _say(verb: str | None, as_json: bool, code: str, message: str, hint: str) -> None:
    note(f"{message}\n{hint}" if hint else message)
    if as_json:
        import json

        typer.echo(json.dumps({"verb": verb, "error": {"code": code, "message": message, "hint": hint}}))


def _interrupted(verb: str | None) -> str:
    if verb == "rebuild":
        return "Interrupted: what was written so far is right and stays; run it again to go on."
    if verb == "repair":
        return "Interrupted: tasks that were done are completed, the others are in the queue again."
    if verb == "verify":
        return "Interrupted: no read model was changed."
    return "Interrupted: nothing was written." if verb else "Interrupted."


def _driver_error() -> type[Exception]:
    from pymongo.errors import PyMongoError

    return PyMongoError


def _of_driver(error: Any) -> ReadModelError:
    from pymongo.errors import ConnectionFailure

    message = f"MongoDB: {_CREDENTIALS.sub('', str(error))[:_LONGEST]}"
    if isinstance(error, ConnectionFailure) or getattr(error, "code", None) in _NOT_LET_IN:
        return MongoUnavailable(message, hint="Check READMODEL_MONGODB_URI, the server and the user's roles.")
    return ReadModelError(message)
