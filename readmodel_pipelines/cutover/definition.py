"""The definition of a collection, its options and indexes: a shadow gets that of the live collection.

That one may be defined anew at any time, by whoever owns it. So a shadow is made like it, indexed like it once it is
filled, brought in line right before the rename; and what was defined within that moment is told by the change stream of
the live collection, and done again to the new one.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bson.timestamp import Timestamp

from readmodel_pipelines.cutover.built import Holder, built, free_name
from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.mongo.changes import AWAIT_MS, drained, right_after
from readmodel_pipelines.mongo.collection import BY_BYTES
from readmodel_pipelines.mongo.driver import (
    MAJORITY,
    ClientSession,
    Collection,
    Database,
    Document,
    OperationFailure,
    ReadConcern,
    ReadPreference,
)
from readmodel_pipelines.mongo.failures import is_the_servers
from readmodel_pipelines.mongo.fenced import Fence
from readmodel_pipelines.mongo.index_builds import votes
from readmodel_pipelines.mongo.kinds import expiry_of
from readmodel_pipelines.mongo.patience import patiently, repeats
from readmodel_pipelines.mongo.wanted_indexes import of_read_model
from readmodel_pipelines.projections.projection import Projection

REDEFINED = ("createIndexes", "dropIndexes", "modify")
"""What a change stream calls that somebody changes a definition."""

_MENDABLE: Mapping[str, Any] = {
    "validator": {},
    "validationLevel": "strict",
    "validationAction": "error",
    "changeStreamPreAndPostImages": {"enabled": False},
}
"""Options that can be changed, and what they are where nobody said it."""

_LONGEST_NAMESPACE = 255
_INDEX_NOT_FOUND = 27
_IS_THERE = 48
_SUCH_AN_INDEX_IS_THERE = (68, 85, 86)


class ShadowFailed(ReadModelError):
    """The shadow cannot get an option or index of the live collection, which stays as it was."""


def create_like(database: Database, live: str, names: Sequence[str], held: Holder, before: Iterable[str] = ()) -> Fence:
    """Make an empty collection with the options and validators of the live one, by the next of these names.

    So it is after those that were there `before`, too, and may still be written to.

    Raises:
        ShadowFailed: the live one is of a kind that cannot be replaced.
        LeaseLost: somebody else makes it.
    """
    (options,) = _options(database, live)
    # A shadow is not sharded, and the read model would not be any more.
    if "clusteredIndex" in options or database.command("collStats", live).get("sharded"):
        raise ShadowFailed(
            f"{live} is a clustered or a sharded collection, and no shadow can take its place.",
            hint="Rebuild it with the strategy in_place.",
        )
    name = free_name(names, {*before, *(item.name for item in built(database, names))})
    if max(len(f"{database.name}.{each}".encode()) for each in names) > _LONGEST_NAMESPACE:
        raise ShadowFailed(
            f"No shadow of {live} can be made: {names[-1]} is too long a name for MongoDB.",
            hint="Rebuild it with the strategy in_place.",
        )

    def create(session: ClientSession) -> None:
        held.claim(session)
        database.command("create", name, session=session, **options)

    def make() -> None:
        with database.client.start_session() as session:
            # Not the client's own concerns, which come from the connection string; of another one nothing can be made.
            session.with_transaction(create, ReadConcern("local"), MAJORITY, ReadPreference.PRIMARY)

    asked = repeats()
    try:
        patiently(make, database.client)
    except OperationFailure as error:
        # Made before, and the reply was lost.
        if error.code != _IS_THERE or repeats() == asked:
            raise
    (fence,) = built(database, [name])
    # What we see is ours, or somebody else's who took over.
    held.confirm()
    return fence


def refuse_expiry(database: Database, live: str) -> None:
    """Raises `ShadowFailed` when MongoDB deletes documents of the live collection by an index."""
    if index := expiry_of(Collection(database, live)):
        raise ShadowFailed(
            f"MongoDB deletes documents of {live} by its index {index}, and a shadow could not be verified meanwhile.",
            hint="Rebuild it with the strategy in_place, or drop that index first.",
        )


def bring_along(database: Database, live: str, fence: Fence, projection: Projection) -> bool:
    """Give a collection the options and indexes that the live one has by now; whether it had others.

    Raises:
        ShadowFailed: documents stand against an index (two want one unique key), or an option cannot be changed.
        LeaseLost: it is not of that name any more.
    """
    options = _bring_options(database, live, fence)
    return index_like(database, live, fence, projection) or options


def index_like(database: Database, live: str, fence: Fence, projection: Projection) -> bool:
    """Give a collection the indexes of the live one, and in any case those that a read model has, and no others.

    Gives whether it had others.

    Raises:
        ShadowFailed: documents stand against an index: two want one unique key, most often.
        LeaseLost: it is not of that name any more.
    """
    wanted = _indexes(database, live)
    by_bytes = [index["key"] for index in wanted if "collation" not in index]
    names = {index["name"] for index in wanted}
    for own in of_read_model(projection):
        if list(own.key) not in by_bytes:
            wanted.append({"key": list(own.key), "name": own.name_beside(names), "unique": True})
    there = _indexes(database, fence.name)
    missing = [index for index in wanted if index not in there]
    others = [index["name"] for index in there if index not in wanted]
    if others:
        _unless((_INDEX_NOT_FOUND,), database, "dropIndexes", fence, index=others)
    if missing:
        _make(database, live, fence, missing)
    return bool(missing or others)


def _make(database: Database, live: str, fence: Fence, indexes: Sequence[Document]) -> None:
    # One without a collation says so, or it gets the collection's own.
    told = [{"collation": BY_BYTES, **index, "key": dict(index["key"])} for index in indexes]
    try:
        fence.command(database, "createIndexes", indexes=told, **votes(database.client))
    except OperationFailure as error:
        if is_the_servers(error.code):
            raise
        raise ShadowFailed(
            f"The new {live} cannot have the indexes of the live one: "
            f"{str((error.details or {}).get('errmsg', error))[:300]}",
            hint="The document of a malformed stream violates it, or one that the events make. Correct the events, "
            "drop the index, or rebuild with the strategy in_place.",
        ) from None


def parts(change: Mapping[str, Any]) -> set[str]:
    """What a change of a definition is about: options, and indexes by name."""
    what = change["operationDescription"]
    indexes = what.get("indexes") or ([what["index"]] if "index" in what else [])
    return {f"index {index['name']}" for index in indexes} or set(what)


def redefined_since(collection: Collection, moment: Timestamp) -> set[str]:
    """What of the definition of a collection was changed after a moment."""
    options: Mapping[str, Any] = {"max_await_time_ms": AWAIT_MS, "show_expanded_events": True}

    def looked() -> set[str]:
        with collection.watch(start_at_operation_time=right_after(moment), **options) as stream:
            changes = drained(stream, collection)
            return set().union(*(parts(change) for change in changes if change["operationType"] in REDEFINED))

    return patiently(looked, collection.database.client)


def do_again(database: Database, fence: Fence, change: Mapping[str, Any], projection: Projection) -> None:
    """Do to a collection what a change stream says that somebody did to the definition of the one in whose place it is.

    What is done already stays so. The unique indexes of a read model stay, too.
    """
    what = change["operationDescription"]
    match change["operationType"]:
        case "modify":
            fence.command(database, "collMod", **what)
        case "createIndexes":
            indexes = [{"collation": BY_BYTES, **index} for index in what["indexes"]]
            told = {"indexes": indexes, **votes(database.client)}
            _unless(_SUCH_AN_INDEX_IS_THERE, database, "createIndexes", fence, **told)
        case _:
            own = [list(index.key) for index in of_read_model(projection)]
            for index in what["indexes"]:
                if list(index["key"].items()) not in own:
                    _unless((_INDEX_NOT_FOUND,), database, "dropIndexes", fence, index=index["name"])


def _unless(codes: Sequence[int], database: Database, command: str, fence: Fence, **options: Any) -> None:
    try:
        fence.command(database, command, **options)
    except OperationFailure as error:
        if error.code not in codes:
            raise


def _indexes(database: Database, name: str) -> list[Document]:
    """Those of a collection but that on `_id`, each as whoever made it said it; keys in their order."""
    made = [index for index in Collection(database, name).list_indexes() if index["name"] != "_id_"]
    told = [{option: value for option, value in index.items() if option not in ("v", "ns")} for index in made]
    return [{**index, "key": list(index["key"].items())} for index in told]


def _options(database: Database, *names: str) -> list[Mapping[str, Any]]:
    found = database.list_collections(filter={"name": {"$in": list(names)}})
    options = {item["name"]: item["options"] for item in found}
    return [options.get(name, {}) for name in names]


def _bring_options(database: Database, live: str, fence: Fence) -> bool:
    wanted, there = ({**_MENDABLE, **options} for options in _options(database, live, fence.name))
    changed = {option: value for option, value in wanted.items() if there.get(option) != value}
    fixed = sorted({*(changed.keys() - _MENDABLE), *(there.keys() - wanted)})
    if fixed:
        raise ShadowFailed(
            f"{live} was made anew with another {' and '.join(fixed)}, which its shadow cannot get.",
            hint="Abort the rebuild, and begin it again.",
        )
    if changed:
        fence.command(database, "collMod", **changed)
    return bool(changed)
