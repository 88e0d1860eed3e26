"""Read models that somebody added, none of which can have its shadow: a module for READMODEL_PROJECTIONS."""

from itertools import count

from readmodel_pipelines import CHAT_FOLD, Chat, Document, Projection

_calls = count()


def _unsteady(key: str, _: Chat) -> Document:
    """Another one each time."""
    return {"key": key, "value": next(_calls)}


def _clashing(key: str, _: Chat) -> Document:
    return {"key": key, "value": "the same"}


def _unwanted(_key: str, _chat: Chat) -> None:
    """So that whatever is there is deleted."""


_DOCUMENTS = {"unsteady": _unsteady, "clashing": _clashing, "unwanted": _unwanted}

READ_MODELS = tuple(
    Projection(name, f"{name}_read_model", CHAT_FOLD, "key", ("key", "value"), make, ("value",), optional=True)
    for name, make in _DOCUMENTS.items()
)
