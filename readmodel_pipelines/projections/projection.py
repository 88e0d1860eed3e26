"""A projection: how a read model is made from its events, as a value without a database.

A read model is one file that defines one `Projection`: in this folder and `registry.built_in`, or in any other file
named by the settings (docs/extending.md). One pass feeds all read models made from the same streams.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bson.int64 import Int64

from readmodel_pipelines.events.stream import Fold

Document = dict[str, Any]
"""A document of a read model: the values by field."""

_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """One read model.

    `name` is its name on the command line and in partitions. `read_model` is its own name, and its collection's unless
    the settings name another. `document` makes the expected document from a folded state, or returns None if there
    should be none. `owned` are the fields that it decides, including their absence; every other field of a stored
    document is foreign and left unchanged. `unique` are keys besides `key` that the collection keeps unique. `claims`
    says where a stream sets such a key: event type and field of its `data`; None if it is the key itself. `optional`:
    `document` returns None for some streams. `decided_by` are the event types, including the one that creates, that
    alone decide this, each with the fields of its `data` that do. Tier versions folds only these, and without them
    cannot decide. Raise `schema_version` with every change of `document`: a rebuild is due then, and an interrupted one
    starts again. `earlier` is the previous `document` function for the same state. A dry run then separates the changes
    of the projection from other differences.
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
    decided_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    schema_version: int = 1
    earlier: Callable[[str, Any], Document | None] | None = None
    description: str = ""


def stored_version(version: int) -> int:
    """A version as the application's driver stores it: int32 if it fits, else int64."""
    return version if version <= _INT32_MAX else Int64(version)
