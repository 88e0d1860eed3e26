"""Arrivals: waits for new tasks in the repair queue with a change stream, so that they are repaired at once.

A change only wakes the worker, which reads the queue itself. So neither many changes nor a superfluous one does harm.
Without change streams the worker sleeps for the whole time.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from bson.int64 import Int64
from pymongo.client_session import ClientSession

from readmodel_pipelines.mongo.driver import DENIED, Database, Document, OperationFailure, PyMongoError

_AWAIT_SECONDS = 1.0
_STANDALONE = 40573
_OF_VIEWS = 166
_TO_BE_DONE = [{"operationType": {"$in": ["insert", "replace"]}}, {"updateDescription.updatedFields.status": "pending"}]
_PIPELINE: list[Document] = [{"$changeStream": {}}, {"$match": {"$or": _TO_BE_DONE}}, {"$project": {"_id": 1}}]


class Arrivals:
    """The arrivals of tasks in a queue since the block began; `without` is called once with the reason if there are no
    change streams.
    """

    def __init__(
        self,
        database: Database,
        queue: str,
        without: Callable[[str], object] = lambda _: None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        # Each batch is read with one command, because the driver's own change stream yields changes one by one and
        # never reports that there is none.
        self._database: Database = database.client.get_database(database.name)
        self._queue = queue
        self._without = without
        self._sleep = sleep
        self._session: ClientSession | None = None
        self._cursor = 0
        self._gives_none = False

    def __enter__(self) -> "Arrivals":
        self._open()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._close()

    def wait(self, seconds: float) -> None:
        """Wait until a task arrives after the last call, but at most this many seconds."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if not self._cursor:
                # Tasks that came before the stream was open must be searched for.
                if not self._open():
                    self._sleep(left)
                return
            if self._came(min(left, _AWAIT_SECONDS)):
                return

    def _open(self) -> bool:
        if self._gives_none:
            return False
        try:
            self._session = self._database.client.start_session()
            self._cursor = self._ask({"aggregate": self._queue, "pipeline": _PIPELINE, "cursor": {}})["id"]
            return True
        except PyMongoError as error:
            self._close()
            if isinstance(error, OperationFailure) and error.code in (*DENIED, _STANDALONE, _OF_VIEWS):
                self._gives_none = True
                self._without(
                    "the user may not follow changes of it"
                    if error.code in DENIED
                    else "the server gives no changes of it"
                )
            return False

    def _came(self, seconds: float) -> bool:
        more = {"getMore": Int64(self._cursor), "collection": self._queue, "maxTimeMS": max(1, int(seconds * 1000))}
        try:
            return bool(self._ask(more)["nextBatch"])
        except PyMongoError:
            # Arrivals since then are unknown; the stream is opened again soon, and then wakes at once.
            self._close()
            self._sleep(seconds)
            return False

    def _ask(self, command: Document) -> Any:
        return self._database.command(command, session=self._session)["cursor"]

    def _close(self) -> None:
        cursor, self._cursor = self._cursor, 0
        session, self._session = self._session, None
        if session is not None:
            with suppress(PyMongoError):
                if cursor:
                    kill = {"killCursors": self._queue, "cursors": [Int64(cursor)]}
                    self._database.command(kill, session=session)
            session.end_session()
