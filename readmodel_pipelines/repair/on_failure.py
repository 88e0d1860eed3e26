"""For applications with their own write path: queues a repair if the update of a read model fails.

with repair_on_failure(RepairQueue(database, settings), chat_id, "chat") as update:
    write_my_read_model(chat_id)
if update.failed: ...       # the document is behind its events; its repair is queued
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.errors import ReadModelError, RepairNotQueued, kind_and_words, words
from readmodel_pipelines.mongo.driver import PyMongoError

_log = logging.getLogger(__name__)
# A library leaves the destination of its log to the application.
_log.addHandler(logging.NullHandler())


@dataclass(slots=True)
class Update:
    """One update of a read model; `error` is its error, if it failed and its repair is queued."""

    error: BaseException | None = None

    @property
    def failed(self) -> bool:
        """Whether the update failed."""
        return self.error is not None


@contextmanager
def repair_on_failure(queue: RepairQueue, aggregate_id: str, aggregate_type: str) -> Iterator[Update]:
    """Update a read model in the block, after its events were saved; an error queues the repair and is not raised.

    The error ends here, because the events are saved and the caller must not report otherwise. Only an exception that
    ends the process is raised again, after the repair is queued.

    Raises:
        UsageError: the id is no UUID, or no read model has that name; before the block.
        RepairNotQueued: the update failed, and queueing its repair too.
    """
    queue.streams.stream_of(aggregate_id, aggregate_type)
    update = Update()
    try:
        yield update
    except BaseException as error:
        update.error = error
        _add(queue, aggregate_id, aggregate_type, error)
        if not isinstance(error, Exception):
            raise


def _add(queue: RepairQueue, aggregate_id: str, aggregate_type: str, error: BaseException) -> None:
    text = kind_and_words(error)
    try:
        queue.add(aggregate_id, aggregate_type, text)
    except (ReadModelError, PyMongoError) as second:
        raise RepairNotQueued(
            f"The events of {aggregate_type} {aggregate_id} are saved, but its read model is not up to date ({text}), "
            f"and no repair could be queued ({words(second)}).",
            hint=f"Do not save them again. `readmodel rebuild-readmodel --type {aggregate_type} --id {aggregate_id}` "
            "repairs the read model.",
        ) from error
    _log.warning(
        "The read model of %s %s is not up to date, its repair is queued: %s", aggregate_type, aggregate_id, text
    )
