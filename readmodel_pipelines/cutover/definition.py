"""The definition of a collection, its options and indexes: a shadow gets that of the live collection.

The owner may change the live definition at any time. So a shadow is created with its options, gets its indexes after it
is filled, and is updated right before the rename. The change stream of the live collection reports changes at the last
moment, which are applied to the new collection.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from readmodel_pipelines.side_by_side import side_by_side

REDEFINED = ("createIndexes", "dropIndexes", "modify")
"""The change stream's names for changes of a definition."""

_MENDABLE: Mapping[str, Any] = {
    "validator": {},
    "validationLevel": "strict",
    "validationAction": "error",
    "changeStreamPreAndPostImages": {"enabled": False},
}
"""Options that can be changed, with their defaults."""

_VOTES = {"commitQuorum": "majority"}
"""Otherwise the server waits for all members, even for one that is down, and 0.1 s longer if there is only one."""
_LONGEST_NAMESPACE = 255
_INDEX_NOT_FOUND = 27
_IS_THERE = 48
_SUCH_AN_INDEX_IS_THERE = (68, 85, 86)


class ShadowFailed(ReadModelError):
    """The shadow cannot get an option or index of the live collection, which stays as it was."""


@dataclass(frozen=True, slots=True)
class Like:
    """A collection to be created like a live one, by the next of these names.

    Its name follows those that existed `before` too, because late writes may still go to them.
    """

    live: str
    names: Sequence[str]
    before: Sequence[str] = ()


def create_like(database: Database, wanted: Sequence[Like], held: Holder) -> list[Fence]:
    """Create empty collections with the options and validators of the live ones: all of them or none.

    Raises:
        ShadowFailed: a live one is of a kind that cannot be replaced, or a new one was dropped at once.
        LeaseLost: another process creates them.
    """
    existing, options = side_by_side(
        lambda: built(database, [name for each in wanted for name in each.names]),
        lambda: _options(database, *(each.live for each in wanted)),
    )
    there = [fence.name for fence in existing]
    named: dict[str, Mapping[str, Any]] = {}
    for each, its_options in zip(wanted, options, strict=True):
        _check_replaceable(database, each, its_options)
        named[free_name(each.names, {*each.before, *there}.intersection(each.names))] = its_options

    def create(session: ClientSession) -> None:
        held.claim(session)
        for name, its_options in named.items():
            database.command("create", name, session=session, **its_options)

    def make() -> None:
        with database.client.start_session() as session:
            # Not the client's own concerns, which come from the connection string; the server may refuse to create a
            # collection with them.
            session.with_transaction(create, ReadConcern("local"), MAJORITY, ReadPreference.PRIMARY)

    asked = repeats()
    try:
        patiently(make, database.client)
    except OperationFailure as error:
        # They were created before, and the reply was lost.
        if error.code != _IS_THERE or repeats() == asked:
            raise
    made = built(database, named)
    # The collections that we see are ours, or those of a process that took over; such a process may also have dropped
    # them.
    held.confirm()
    if gone := named.keys() - {fence.name for fence in made}:
        raise ShadowFailed(
            f"{' and '.join(sorted(gone))} was dropped by another program right after it was created.",
            hint="Find that program, then start the rebuild again.",
        )
    return made


def _check_replaceable(database: Database, wanted: Like, options: Mapping[str, Any]) -> None:
    live, names = wanted.live, wanted.names
    # A shadow is not sharded, and neither would the read model be.
    sharded = database.client.is_mongos and database.command("collStats", live).get("sharded")
    if "clusteredIndex" in options or sharded:
        raise ShadowFailed(
            f"{live} is a clustered or a sharded collection, and no shadow can take its place.",
            hint="Rebuild it with --strategy in_place.",
        )
    if max(len(f"{database.name}.{each}".encode()) for each in names) > _LONGEST_NAMESPACE:
        raise ShadowFailed(
            f"No shadow of {live} can be created: {names[-1]} is too long for a name in MongoDB.",
            hint="Rebuild it with --strategy in_place.",
        )


def refuse_expiry(database: Database, live: str) -> None:
    """Raise `ShadowFailed` if an index lets documents of the live collection expire."""
    if index := expiry_of(Collection(database, live)):
        raise ShadowFailed(
            f"MongoDB deletes documents of {live} by its index {index}, and a shadow could not be verified meanwhile.",
            hint="Rebuild it with --strategy in_place, or drop that index first.",
        )


def bring_along(database: Database, live: str, fence: Fence, projection: Projection) -> bool:
    """Give a collection the current options and indexes of the live one; returns whether it had others.

    Raises:
        ShadowFailed: documents violate an index (two have one unique key), or an option cannot be changed.
        LeaseLost: it no longer has that name.
    """
    options, wanted, there = side_by_side(
        lambda: _options(database, live, fence.name),
        lambda: _indexes(database, live),
        lambda: _indexes(database, fence.name),
    )
    had_other_options = _bring_options(database, live, fence, options)
    return _bring_indexes(database, live, fence, projection, wanted, there) or had_other_options


def index_like(database: Database, live: str, fence: Fence, projection: Projection) -> bool:
    """Give a collection the indexes of the live one and those that a read model needs, and no others.

    Returns whether it had others.

    Raises:
        ShadowFailed: documents violate an index; usually two have one unique key.
        LeaseLost: it no longer has that name.
    """
    wanted, there = side_by_side(lambda: _indexes(database, live), lambda: _indexes(database, fence.name))
    return _bring_indexes(database, live, fence, projection, wanted, there)


def _bring_indexes(
    database: Database,
    live: str,
    fence: Fence,
    projection: Projection,
    of_live: Sequence[Document],
    there: Sequence[Document],
) -> bool:
    wanted = list(of_live)
    by_bytes = [index["key"] for index in wanted if "collation" not in index]
    names = {index["name"] for index in wanted}
    wanted += [
        {"key": list(own.key), "name": own.name_beside(names), "unique": True}
        for own in of_read_model(projection)
        if list(own.key) not in by_bytes
    ]
    missing = [index for index in wanted if index not in there]
    others = [index["name"] for index in there if index not in wanted]
    if others:
        _unless((_INDEX_NOT_FOUND,), database, "dropIndexes", fence, index=others)
    if missing:
        _make(database, live, fence, missing)
    return bool(missing or others)


def _make(database: Database, live: str, fence: Fence, indexes: Sequence[Document]) -> None:
    # An index without a collation must state it, or it gets the collection's own.
    told = [{"collation": BY_BYTES, **index, "key": dict(index["key"])} for index in indexes]
    try:
        fence.command(database, "createIndexes", indexes=told, **{**_VOTES, **votes(database.client)})
    except OperationFailure as error:
        if is_the_servers(error.code):
            raise
        raise ShadowFailed(
            f"The new {live} cannot have the indexes of the live one: "
            f"{str((error.details or {}).get('errmsg', error))[:300]}",
            hint="The document of a malformed stream violates it, or a document that the events make. Correct the "
            "events, drop the index, or rebuild with --strategy in_place.",
        ) from None


def parts(change: Mapping[str, Any]) -> set[str]:
    """The parts that a change of a definition concerns: options, and indexes by name."""
    what = change["operationDescription"]
    indexes = what.get("indexes") or ([what["index"]] if "index" in what else [])
    return {f"index {index['name']}" for index in indexes} or set(what)


def redefined_since(collection: Collection, moment: Timestamp) -> set[str]:
    """The parts of a collection's definition that changed after a moment."""
    options: Mapping[str, Any] = {"max_await_time_ms": AWAIT_MS, "show_expanded_events": True}

    def looked() -> set[str]:
        with collection.watch(start_at_operation_time=right_after(moment), **options) as stream:
            changes = drained(stream, collection)
            return set().union(*(parts(change) for change in changes if change["operationType"] in REDEFINED))

    return patiently(looked, collection.database.client)


def do_again(database: Database, fence: Fence, change: Mapping[str, Any], projection: Projection) -> None:
    """Apply to a collection the change of definition that a change stream reports of the one it replaced.

    A change that is already applied stays. The unique indexes of a read model stay, too.
    """
    what = change["operationDescription"]
    match change["operationType"]:
        case "modify":
            fence.command(database, "collMod", **what)
        case "createIndexes":
            indexes = [{"collation": BY_BYTES, **index} for index in what["indexes"]]
            told = {"indexes": indexes, **_VOTES, **votes(database.client)}
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
    """The indexes of a collection without that on `_id`, as they were created; keys in their order."""
    made = [index for index in Collection(database, name).list_indexes() if index["name"] != "_id_"]
    told = [{option: value for option, value in index.items() if option not in ("v", "ns")} for index in made]
    return [{**index, "key": list(index["key"].items())} for index in told]


def _options(database: Database, *names: str) -> list[Mapping[str, Any]]:
    found = database.list_collections(filter={"name": {"$in": list(names)}})
    options = {item["name"]: item["options"] for item in found}
    return [options.get(name, {}) for name in names]


def _bring_options(database: Database, live: str, fence: Fence, options: Sequence[Mapping[str, Any]]) -> bool:
    wanted, there = ({**_MENDABLE, **each} for each in options)
    changed = {option: value for option, value in wanted.items() if there.get(option) != value}
    fixed = sorted({*(changed.keys() - _MENDABLE), *(there.keys() - wanted)})
    if fixed:
        raise ShadowFailed(
            f"{live} was recreated with another {' and '.join(fixed)}, which its shadow cannot get.",
            hint="Abort the rebuild, and start it again.",
        )
    if changed:
        fence.command(database, "collMod", **changed)
    return bool(changed)
