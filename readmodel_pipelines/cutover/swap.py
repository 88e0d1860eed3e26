"""The swap: a collection takes the place of the live one, in one step.

The server renames these two and no others: it is told which they are. It waits for transactions that are open on the
live collection, and whoever writes there waits behind it; so it waits for a moment alone, lets writers go on, and tries
again. An index build on either ends before that.

A sharded cluster goes on with a renaming that it has begun, whether or not somebody waits for it. There it is waited
for, which takes no longer than a transaction may.
"""

import time
from collections.abc import Callable

from readmodel_pipelines.cutover.built import identity
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
_INDEX_BUILD = 12587


class SwapBlocked(MongoFailed):
    """Transactions locked the live collection at each attempt of the cut-over. Nothing was renamed."""


class NotThere(Exception):
    """What is to take the place of the live collection is not there any more; `str()` is its name."""


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
    """Put what was built in the place of the live one; `look` comes right before each try.

    `before` is the identity of that, where it is known from earlier; otherwise that counts which is there at a try.

    Raises:
        NotThere: what was built is not of that name any more.
        LiveReplaced: the live one is another one by now.
        SwapBlocked: others had it locked, each time that it was tried.
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
        if code == _INDEX_BUILD:
            say(f"An index of {live} is being built; the swap waits for its end.")
        tries += code != _INDEX_BUILD
        sleep(settings.swap_wait_seconds)
    raise SwapBlocked(
        f"Transactions locked {live}, or it was busy, at each of {settings.swap_tries:,} attempts to rename "
        f"{fence.name} over it. It is unchanged.",
        hint="db.currentOp() shows the transactions. End them and resume. Raise READMODEL_SWAP_WAIT_SECONDS or "
        "READMODEL_SWAP_TRIES for more time.",
    )


def _renamed(database: Database, fence: Fence, live: str, target: str, seconds: float) -> int | None:
    """Why it could not be renamed, if so: the code of the error."""
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
        if error.code not in (_IS_THERE, _TOOK_TOO_LONG, MISMATCH, _INDEX_BUILD, _NOT_FOUND):
            raise
        return error.code
    return None
