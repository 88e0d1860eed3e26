"""Failures in words: every error that a person meets becomes a sentence, what to do, and an exit code.

No traceback and no credentials; with `--json` the same also as one document on stdout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import typer

from readmodel_pipelines.cli.interrupted import Interrupted, again
from readmodel_pipelines.cli.voice import complain, voice
from readmodel_pipelines.errors import MongoUnavailable, ReadModelError, UsageError

INTERRUPTED = 130

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
_NOT_LET_IN = {13, 18, 8000}
_LONGEST = 500


@contextmanager
def in_words(verb: str) -> Iterator[None]:
    """Turn what a person can cause or must act on into words and an exit code; a bug keeps its traceback."""
    try:
        with _explained(verb):
            yield
    except ReadModelError as error:
        found = error
    except Interrupted as ending:
        _tell(verb, "interrupted", ending.message, ending.hint, ending.done)
        raise typer.Exit(INTERRUPTED) from None
    except KeyboardInterrupt:
        _tell(verb, "interrupted", _AT_LEAST.get(verb, "Interrupted: nothing was changed."), f"Again: {again()}")
        raise typer.Exit(INTERRUPTED) from None
    # Evaluated only when an error comes this far, so that help and usage errors need no driver.
    except _driver_error() as error:
        found = _of_driver(error)
    else:
        return
    _tell(verb, found.code, found.message, found.hint)
    raise typer.Exit(found.exit_code)


def _explained(verb: str) -> AbstractContextManager[None]:
    if voice.verbose and voice.quiet:
        raise UsageError("--quiet and --verbose were given; one asks for less, the other for more.", hint="Give one.")
    if not voice.verbose:
        return nullcontext()
    from readmodel_pipelines.cli.verbose import explained

    # The doctor shows them itself: they are a part of what it was asked for.
    return explained(with_settings=verb != "doctor")


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
