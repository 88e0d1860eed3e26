"""Repair: the way from a failed read-model update, through the repair queue, to a read model that is right again.

Applications save through `EventRepository`, or put `repair_on_failure` around their own update of a read model.
`RepairWorker` works off the queue; Dagster's sensor and `readmodel repair-queue work` are two ways to run it.
"""

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.repair.new_event import NewEvent
from readmodel_pipelines.repair.on_failure import repair_on_failure
from readmodel_pipelines.repair.repository import EventRepository, Saved
from readmodel_pipelines.repair.summary import RepairSummary
from readmodel_pipelines.repair.worker import RepairWorker

__all__ = [
    "EventRepository",
    "NewEvent",
    "RepairQueue",
    "RepairSummary",
    "RepairWorker",
    "Saved",
    "repair_on_failure",
]
