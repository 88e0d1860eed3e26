"""Failures in words: every error that a person meets becomes a sentence, what to do, and an exit code.

No traceback and no credentials; with `--json` the same also as one document on stdout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

from readmodel_pipelines.cli.voice import complain, voice
from readmodel_pipelines.errors import MongoUnavailable, ReadModelError

INTERRUPTED = 130

# Of an end before anything was begun, or where nobody knows more.
_AT_LEAST = {
    "rebuild": "Interrupted: what was written so far is right and stays; run it again to go on.",
    "repair": "Interrupted: tasks that were done are completed, the others are in the queue again.",
    "verify": "Interrupted: no read model was changed.",
}

_CREDENTIALS = re.compile(r"(?<=://)\S*@")
_NOT_LET_IN = {13, 18, 8000}
_LONGEST = 500


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a polite kill, met by somebody who knows what was done until then."""

    def __init__(self, message: str, *, hint: str = "", done: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.done = done or {}


@contextmanager
def in_words(verb: str) -> Iterator[None]:
    """Turn what a person can cause or must act on into words and an exit code; a bug keeps its traceback."""
    try:
        yield
    except ReadModelError as error:
        found = error
    except Interrupted as ending:
        _tell(verb, "interrupted", ending.message, ending.hint, ending.done)
        raise typer.Exit(INTERRUPTED) from None
    except KeyboardInterrupt:
        _tell(verb, "interrupted", _AT_LEAST.get(verb, "Interrupted."), "")
        raise typer.Exit(INTERRUPTED) from None
    # Evaluated only when an error comes this far, so that help and usage errors need no driver.
    except _driver_error() as error:
        found = _of_driver(error)
    else:
        return
    _tell(verb, found.code, found.message, found.hint)
    raise typer.Exit(found.exit_code)


def _tell(verb: str, code: str, message: str, hint: str, done: Mapping[str, Any] | None = None) -> None:
    complain(f"{message}\n{hint}" if hint else message)
    document: dict[str, Any] = {"verb": verb, "error": {"code": code, "message": message, "hint": hint}}
    if done:
        document["done"] = done
    voice.document(document)


def _driver_error() -> type[Exception]:
    from pymongo.errors import PyMongoError

    return PyMongoError


def _of_driver(error: Any) -> ReadModelError:
    from pymongo.errors import ConnectionFailure

    message = f"MongoDB: {_CREDENTIALS.sub('', str(error))[:_LONGEST]}"
    if isinstance(error, ConnectionFailure) or getattr(error, "code", None) in _NOT_LET_IN:
        return MongoUnavailable(message, hint="Check READMODEL_MONGODB_URI, the server and the user's roles.")
    return ReadModelError(message)
