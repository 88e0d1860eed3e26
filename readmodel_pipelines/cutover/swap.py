"""The cut-over: one rename replaces the live collection.

The command contains the UUIDs of both collections, so the server renames no others. It waits for open transactions on
the live collection, and writers wait behind it. So it waits only briefly, lets the writers continue, and tries again.
Index builds on either collection must end before.

A sharded cluster completes a rename even if the client gives up. There the client waits, for at most the lifetime of a
transaction.
"""

import time
from collections.abc import Callable

from readmodel_pipelines.cutover.built import INDEX_BUILD, identity
from readmodel_pipelines.cutover.foreign import LiveReplaced
from readmodel_pipelines.errors import MongoFailed
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.driver import MAJORITY, Database, OperationFailure
from readmodel_pipelines.mongo.fenced import MISMATCH, Fence, uuid_of
from readmodel_pipelines.mongo.patience import patiently
from readmodel_pipelines.settings import Settings

_NOT_FOUND = 26
_IS_THERE = 48
_TOOK_TOO_LONG = 50


class SwapBlocked(MongoFailed):
    """Transactions locked the live collection at each attempt of the cut-over. Nothing was renamed."""


class NotThere(Exception):
    """The collection that should replace the live one no longer exists; `str()` is its name."""


def swap(
    database: Database,
    fence: Fence,
    live: str,
    settings: Settings,
    *,
    before: str = "",
    look: Callable[[], object] = lambda: None,
    say: Callable[[str], object] = lambda _: None,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Rename the built collection over the live one; `look` is called right before each attempt.

    `before` is the UUID of the live collection, if known; otherwise the one at the attempt counts.

    Raises:
        NotThere: the built collection no longer has that name.
        LiveReplaced: the live collection was replaced.
        SwapBlocked: others locked it at each attempt.
    """
    tries = 0
    while tries < settings.swap_tries:
        look()
        target = before or identity(database, live)
        reached(Moment.SWAP, live=live)
        code = _renamed(database, fence, live, target, settings.swap_wait_seconds)
        if code is None or identity(database, live) == fence.identity:
            reached(Moment.SWAPPED, live=live)
            return
        if identity(database, fence.name) != fence.identity:
            raise NotThere(fence.name)
        if code == MISMATCH and before:
            raise LiveReplaced(live)
        if code == INDEX_BUILD:
            say(f"An index of {live} is being built; the cut-over waits for its end.")
        tries += code != INDEX_BUILD
        sleep(settings.swap_wait_seconds)
    raise SwapBlocked(
        f"Transactions locked {live}, or it was busy, at each of {settings.swap_tries:,} attempts to rename "
        f"{fence.name} over it. It is unchanged.",
        hint="db.currentOp() shows the transactions. End them and resume. Raise READMODEL_SWAP_WAIT_SECONDS or "
        "READMODEL_SWAP_TRIES for more time.",
    )


def _renamed(database: Database, fence: Fence, live: str, target: str, seconds: float) -> int | None:
    """The code of the error that prevented the rename, if any."""
    space, client = database.name, database.client
    asked = {
        "renameCollection": f"{space}.{fence.name}",
        "to": f"{space}.{live}",
        "dropTarget": uuid_of(target) if target else False,
        "writeConcern": MAJORITY.document,
        **({} if client.is_mongos else {"maxTimeMS": max(1, int(seconds * 1000))}),
        **fence.said,
    }
    try:
        patiently(lambda: client.admin.command(asked), client)
    except OperationFailure as error:
        if error.code not in (_IS_THERE, _TOOK_TOO_LONG, MISMATCH, INDEX_BUILD, _NOT_FOUND):
            raise
        return error.code
    return None
