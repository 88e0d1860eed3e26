"""A projection: what a read model is made from and how, as a value without a database.

A read model is one file that makes one `Projection`: in this folder and `registry.built_in`, or anywhere else and named
by the settings (docs/extending.md). Those that are made from the same streams are fed by one pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bson.int64 import Int64

from readmodel_pipelines.events.stream import Fold

Document = dict[str, Any]
"""A document of a read model: the values by field."""

_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """One read model.

    `name` is what people call it on the command line and in partitions, `read_model` its own name and its collection's
    unless the settings say otherwise. `document` makes the document that ought to be there from a folded state, or
    None where there ought to be none. `owned` are the fields it decides on, their absence included; every other field
    of a stored document is foreign and left alone. `unique` are keys besides `key` that the collection keeps unique.
    `claims` tells where a stream fixes such a key: event type and field of its `data`; None where it is the key itself.
    `optional`: `document` gives None for some streams. `decided_by` are the event types, that which creates among them,
    that alone decide whether it does: the tier of versions folds no others, and without them cannot tell.
    `schema_version` is raised with every change of what `document` makes: a rebuild is due then, and one that began
    before starts anew. `earlier` is what made the document before that, from the same state: a dry run then tells
    what the change does apart from what is wrong anyway.
    """

    name: str
    read_model: str
    fold: Fold[Any]
    key: str
    owned: tuple[str, ...]
    document: Callable[[str, Any], Document | None]
    unique: tuple[str, ...] = ()
    claims: tuple[str, str] | None = None
    optional: bool = False
    decided_by: tuple[str, ...] = ()
    schema_version: int = 1
    earlier: Callable[[str, Any], Document | None] | None = None
    description: str = ""


def stored_version(version: int) -> int:
    """A version as the application's driver stores it: int32 while it fits, else int64."""
    return version if version <= _INT32_MAX else Int64(version)
