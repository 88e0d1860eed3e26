"""What rebuilds build beside live collections: shadows, and copies of what was before. Found by identity, not by name.

MongoDB grants rights by exact names, so there are a few fixed ones for each live collection. Whoever takes over what
was built moves it on to the next of them: all that its former holder still sends is refused then, for it says name and
identity. Whoever holds the lease of the live collection, and nobody else, makes and drops what has such a name.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Protocol
from uuid import UUID

from readmodel_pipelines.errors import LeaseLost, ReadModelError
from readmodel_pipelines.mongo.driver import MAJORITY, ClientSession, Database, OperationFailure
from readmodel_pipelines.mongo.fenced import MISMATCH, Fence
from readmodel_pipelines.mongo.patience import patiently

_NAME_IS_TAKEN = 48
_NOT_THERE = 26
_TRIES = 8


class Holder(Protocol):
    """Who holds the leases under which something is built."""

    def confirm(self) -> None:
        """Raises `LeaseLost` when they are not its own any more, by the server."""

    def claim(self, session: ClientSession) -> None:
        """The same inside a transaction, which then ends before anybody else takes them, or not at all."""


def built(database: Database, names: Iterable[str]) -> list[Fence]:
    """What there is of these names, in their order."""
    order = list(names)
    # Of which type an identity is goes by how the database decodes.
    found = list(database.list_collections(filter={"name": {"$in": order}}))
    # A view has none.
    uuids = {info["name"]: info["info"]["uuid"] for info in found if "uuid" in info["info"]}
    told = {name: uuid.hex if isinstance(uuid, UUID) else uuid.hex() for name, uuid in uuids.items()}
    return [Fence(name, told[name]) for name in order if name in told]


def identity(database: Database, name: str) -> str:
    """The identity of what has a name; empty when there is no such collection."""
    return next((fence.identity for fence in built(database, [name])), "")


def find(database: Database, names: Iterable[str], identity: str) -> Fence | None:
    """The collection of that identity, if it has one of these names."""
    return next((fence for fence in built(database, names) if fence.identity == identity), None)


def free_name(names: Sequence[str], taken: Iterable[str]) -> str:
    """The next name that is free: behind those that are taken, for something may still write to what had one before.

    Raises:
        ReadModelError: there is none.
    """
    places = sorted(map(names.index, taken))
    start = places[-1] + 1 if places else 0
    for place in range(start, start + len(names)):
        if place % len(names) not in places:
            return names[place % len(names)]
    raise ReadModelError(f"Every name from {names[0]} to {names[-1]} is taken.", hint="Drop those collections.")


def moved_on(database: Database, names: Sequence[str], identity: str) -> Fence | None:
    """Move the collection of that identity to the next of its names, if it has one: all other holders are refused."""
    for _ in range(_TRIES):
        there = built(database, names)
        fence = next((item for item in there if item.identity == identity), None)
        if fence is None:
            return None
        name = free_name(names, [item.name for item in there])
        try:
            space, client = database.name, database.client
            asked = {"renameCollection": f"{space}.{fence.name}", "to": f"{space}.{name}", **fence.said}
            with fence.held():
                patiently(partial(client.admin.command, asked, writeConcern=MAJORITY.document), client)
        except LeaseLost:
            # Its former holder, who did the same, was faster; or it is done, and the reply was lost.
            continue
        except OperationFailure as error:
            if error.code != _NAME_IS_TAKEN:
                raise
            continue
        return Fence(name, identity)
    raise ReadModelError(
        f"{names[0]} is renamed again and again.", hint="Find the process that works on it, then run this again."
    )


def drop(database: Database, fences: Iterable[Fence]) -> None:
    """Drop them, if they are still there and of that name."""
    for fence in fences:
        try:
            database.command("drop", fence.name, writeConcern=MAJORITY.document, **fence.said)
        except OperationFailure as error:
            if error.code not in (MISMATCH, _NOT_THERE):
                raise
