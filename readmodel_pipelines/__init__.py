"""Rebuild, verify and repair the read models of event-sourced applications on MongoDB.

This is the public API: applications, their event handlers and their own projections import only from here. A name is
imported when it is first used, because the command line also imports this package and must start fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_FROM = {
    "settings": "Settings load_settings",
    "mongo.connection": "open_database",
    "projector": "ReadModelProjector",
    "reconcile.summary": "Summary",
    "reconcile.finding": "Finding",
    "reconcile.outcome": "Outcome",
    "repair.repository": "EventRepository NewEvent Saved",
    "repair.on_failure": "repair_on_failure",
    "repair.worker": "RepairWorker",
    "repair.summary": "RepairSummary",
    "bookkeeping.repair_queue": "RepairQueue",
    "projections.projection": "Document Projection",
    "projections.chat": "CHAT_FOLD Chat",
    "projections.task": "TASK_FOLD Task",
    "events.stream": "EventType Fold Malformed Reason fold_streams",
    "events.values": "ZERO_TIME_MS BadField Event flag integer occurred_at_ms optional_text optional_time_ms "
    "parse_time text time_ms",
    "errors": "AggregateNotFound ConcurrencyConflict EventRefused LeaseLost MongoUnavailable ReadModelBusy "
    "ReadModelError RepairNotQueued RepairQueueFull UsageError WrongAggregateType",
}
_MODULES = {name: module for module, names in _FROM.items() for name in names.split()}

if TYPE_CHECKING:
    # The same list, for type checkers and editors; a test compares the two.
    from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue as RepairQueue
    from readmodel_pipelines.errors import AggregateNotFound as AggregateNotFound
    from readmodel_pipelines.errors import ConcurrencyConflict as ConcurrencyConflict
    from readmodel_pipelines.errors import EventRefused as EventRefused
    from readmodel_pipelines.errors import LeaseLost as LeaseLost
    from readmodel_pipelines.errors import MongoUnavailable as MongoUnavailable
    from readmodel_pipelines.errors import ReadModelBusy as ReadModelBusy
    from readmodel_pipelines.errors import ReadModelError as ReadModelError
    from readmodel_pipelines.errors import RepairNotQueued as RepairNotQueued
    from readmodel_pipelines.errors import RepairQueueFull as RepairQueueFull
    from readmodel_pipelines.errors import UsageError as UsageError
    from readmodel_pipelines.errors import WrongAggregateType as WrongAggregateType
    from readmodel_pipelines.events.stream import EventType as EventType
    from readmodel_pipelines.events.stream import Fold as Fold
    from readmodel_pipelines.events.stream import Malformed as Malformed
    from readmodel_pipelines.events.stream import Reason as Reason
    from readmodel_pipelines.events.stream import fold_streams as fold_streams
    from readmodel_pipelines.events.values import ZERO_TIME_MS as ZERO_TIME_MS
    from readmodel_pipelines.events.values import BadField as BadField
    from readmodel_pipelines.events.values import Event as Event
    from readmodel_pipelines.events.values import flag as flag
    from readmodel_pipelines.events.values import integer as integer
    from readmodel_pipelines.events.values import occurred_at_ms as occurred_at_ms
    from readmodel_pipelines.events.values import optional_text as optional_text
    from readmodel_pipelines.events.values import optional_time_ms as optional_time_ms
    from readmodel_pipelines.events.values import parse_time as parse_time
    from readmodel_pipelines.events.values import text as text
    from readmodel_pipelines.events.values import time_ms as time_ms
    from readmodel_pipelines.mongo.connection import open_database as open_database
    from readmodel_pipelines.projections.chat import CHAT_FOLD as CHAT_FOLD
    from readmodel_pipelines.projections.chat import Chat as Chat
    from readmodel_pipelines.projections.projection import Document as Document
    from readmodel_pipelines.projections.projection import Projection as Projection
    from readmodel_pipelines.projections.task import TASK_FOLD as TASK_FOLD
    from readmodel_pipelines.projections.task import Task as Task
    from readmodel_pipelines.projector import ReadModelProjector as ReadModelProjector
    from readmodel_pipelines.reconcile.finding import Finding as Finding
    from readmodel_pipelines.reconcile.outcome import Outcome as Outcome
    from readmodel_pipelines.reconcile.summary import Summary as Summary
    from readmodel_pipelines.repair.on_failure import repair_on_failure as repair_on_failure
    from readmodel_pipelines.repair.repository import EventRepository as EventRepository
    from readmodel_pipelines.repair.repository import NewEvent as NewEvent
    from readmodel_pipelines.repair.repository import Saved as Saved
    from readmodel_pipelines.repair.summary import RepairSummary as RepairSummary
    from readmodel_pipelines.repair.worker import RepairWorker as RepairWorker
    from readmodel_pipelines.settings import Settings as Settings
    from readmodel_pipelines.settings import load_settings as load_settings
else:
    __all__ = tuple(_MODULES)

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
