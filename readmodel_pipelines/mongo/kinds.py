"""What kind of collection is there: not every one can hold events, a read model or the repair queue.

A view, a capped collection and a time series look like collections, and do not do all that one does. What cannot be is
refused in words before anything is read.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from readmodel_pipelines.errors import UnsuitableCollection
from readmodel_pipelines.mongo.driver import DENIED, Collection, Database, OperationFailure, is_there

_OTHER_COLLATION = 167
_IS_A_VIEW = 166
_NO_WRITES = {
    "view": ("is a view, and nothing can be written to it", "Name the collection that it shows."),
    "timeseries": (
        "is a time series collection, in which no document can be replaced",
        "Copy it into a common collection, and name that.",
    ),
}
_CAPPED = (
    "is capped: MongoDB drops its oldest documents as new ones come, so that it never holds what it was given",
    "Copy it into a collection without a limit, and rename that.",
)


def check_kinds(
    database: Database, read: Sequence[str] = (), written: Sequence[str] = (), kept: Sequence[str] = ()
) -> None:
    """Refuse collections that cannot be read or written as they are to be, or do not keep what is written to them.

    Those that are not there pass.

    Raises:
        UnsuitableCollection: says which, why, and what to do.
    """
    for name, info in _found(database, [*read, *written, *kept]).items():
        kind = info.get("type", "")
        if name in written or name in kept:
            why, hint = _NO_WRITES.get(kind, ("", ""))
            if name in kept and info.get("options", {}).get("capped"):
                why, hint = _CAPPED
            if why:
                raise UnsuitableCollection(f"{name} {why}.", hint=hint)
        if kind == "view":
            _check_view(Collection(database, name))


def _found(database: Database, names: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
    these = {"name": {"$in": list(names)}}
    try:
        found = list(database.list_collections(filter=these))
    except OperationFailure as error:
        if error.code not in DENIED:
            raise
        # Without the right to list all a user is told the types of those that it may use, and no options.
        found = list(database.list_collections(filter=these, nameOnly=True, authorizedCollections=True))
    return {info["name"]: info for info in found}


def _check_view(view: Collection) -> None:
    try:
        is_there(view)
    except OperationFailure as error:
        if error.code != _OTHER_COLLATION:
            raise
        raise UnsuitableCollection(
            f"{view.name} is a view with a collation of its own, by which alone it can be read; keys are compared by "
            "their bytes.",
            hint="Make the view without a collation, or name the collection that it shows.",
        ) from None


def indexes_of(collection: Collection) -> list[Mapping[str, Any]] | None:
    """Its indexes as the server describes them; None of a view, which has none."""
    try:
        return list(collection.list_indexes())
    except OperationFailure as error:
        if error.code != _IS_A_VIEW:
            raise
        return None


def expiry_of(collection: Collection) -> str:
    """The name of an index by which MongoDB deletes documents of a collection; empty when there is none."""
    return next((str(index["name"]) for index in indexes_of(collection) or () if "expireAfterSeconds" in index), "")
