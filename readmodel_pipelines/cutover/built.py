"""The collections that rebuilds build beside live ones: shadows and copies. They are found by UUID, not by name.

MongoDB grants rights by exact names, so each live collection has a few fixed ones. A run that takes over moves a
collection to the next name. The server then refuses late commands of the former holder, which contain the old name and
the UUID. Only the holder of the live collection's lease creates and drops collections with such names.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol
from uuid import UUID

from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.driver import MAJORITY, ClientSession, Database, OperationFailure
from readmodel_pipelines.mongo.fenced import MISMATCH, Fence
from readmodel_pipelines.mongo.patience import patiently, tell

INDEX_BUILD = 12587
"""The code of the server's refusal to rename a collection while an index of it is built."""
_NAME_IS_TAKEN = 48
_NOT_THERE = 26
_TRIES = 8
_INDEX_BUILD_SECONDS = 1.0


class Holder(Protocol):
    """Holds the leases under which a collection is built."""

    def confirm(self) -> None:
        """Raise `LeaseLost` if the leases are no longer its own, by the server."""

    def claim(self, session: ClientSession) -> None:
        """Like `confirm`, inside a transaction: it commits before another holder takes them, or not at all."""


def built(database: Database, names: Iterable[str]) -> list[Fence]:
    """The existing collections with these names, in their order."""
    order = list(names)
    # The type of a UUID depends on the database's codec.
    found = list(database.list_collections(filter={"name": {"$in": order}}))
    # A view has none.
    uuids = {info["name"]: info["info"]["uuid"] for info in found if "uuid" in info["info"]}
    told = {name: uuid.hex if isinstance(uuid, UUID) else uuid.hex() for name, uuid in uuids.items()}
    return [Fence(name, told[name]) for name in order if name in told]


def identities(database: Database, names: Iterable[str]) -> Mapping[str, str]:
    """The UUIDs of the existing collections with these names."""
    return {fence.name: fence.identity for fence in built(database, names)}


def identity(database: Database, name: str) -> str:
    """The UUID of the collection with this name; empty if there is none."""
    return identities(database, [name]).get(name, "")


def find(database: Database, names: Iterable[str], identity: str) -> Fence | None:
    """The collection with this UUID, if it has one of these names."""
    return next((fence for fence in built(database, names) if fence.identity == identity), None)


def free_name(names: Sequence[str], taken: Iterable[str]) -> str:
    """The next free name after the used ones, because late writes may still go to an earlier name.

    Raises:
        ReadModelError: no name is free.
    """
    places = sorted(map(names.index, taken))
    start = places[-1] + 1 if places else 0
    for place in range(start, start + len(names)):
        if place % len(names) not in places:
            return names[place % len(names)]
    raise ReadModelError(f"Every name from {names[0]} to {names[-1]} is taken.", hint="Drop those collections.")


def moved_on(database: Database, names: Sequence[str], identity: str, held: Holder) -> Fence | None:
    """Rename the collection with this UUID to the next name, so that the server refuses all other holders.

    Raises:
        LeaseLost: another process took over while this one waited for an index build.
    """
    for _ in range(_TRIES):
        there = built(database, names)
        fence = next((item for item in there if item.identity == identity), None)
        if fence is None:
            return None
        name = free_name(names, [item.name for item in there])
        code = _renamed(database, fence, name)
        if code == INDEX_BUILD:
            tell(f"The server still builds an index of {fence.name} for a run that was killed. Waiting for its end.")
        while code == INDEX_BUILD:
            reached(Moment.INDEX_BUILD)
            held.confirm()
            time.sleep(_INDEX_BUILD_SECONDS)
            code = _renamed(database, fence, name)
        if code is None:
            return Fence(name, identity)
    raise ReadModelError(
        f"{names[0]} was renamed by another process at every attempt.",
        hint="Find the process that works on it, then run this again.",
    )


def _renamed(database: Database, fence: Fence, name: str) -> int | None:
    """The code of the error that prevented the rename, if any."""
    space, client = database.name, database.client
    asked = {"renameCollection": f"{space}.{fence.name}", "to": f"{space}.{name}", **fence.said}
    try:
        patiently(partial(client.admin.command, asked, writeConcern=MAJORITY.document), client)
    except OperationFailure as error:
        # With a mismatch the former holder did the same first; or our rename succeeded and its reply was lost.
        if error.code not in (MISMATCH, _NAME_IS_TAKEN, INDEX_BUILD):
            raise
        return error.code
    return None


def drop(database: Database, fences: Iterable[Fence]) -> None:
    """Drop them, if they still exist with these names."""
    for fence in fences:
        try:
            database.command("drop", fence.name, writeConcern=MAJORITY.document, **fence.said)
        except OperationFailure as error:
            if error.code not in (MISMATCH, _NOT_THERE):
                raise
