"""The stream that a task of the repair queue asks to repair, in every spelling of types that producers use.

A *stream* here is a type of stream and its id: the unit of a lease. Python interprets a task, and MongoDB's filters
select tasks. Both must agree, or a task stays due forever.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from readmodel_pipelines.bookkeeping.repair_task import (
    CANNOT_BE_WRITTEN,
    LARGEST,
    REPEATED_FIELD,
    TASK_TYPE,
    UNKNOWN_AGGREGATE_TYPE,
    UNKNOWN_TASK_TYPE,
    text,
)
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.events.ids import is_aggregate_id
from readmodel_pipelines.events.stream import Reason
from readmodel_pipelines.mongo.driver import Document
from readmodel_pipelines.projections.registry import by_fold, projections_for
from readmodel_pipelines.settings import Settings

_BLANKS = r"[ \t\n\r\f\v]*"


class RepairStreams:
    """The types of streams that can be repaired; `read_models` has the names of those made from each."""

    def __init__(self, settings: Settings) -> None:
        groups = by_fold(projections_for(settings))
        # People and producers name a read model; all read models of the same stream are repaired together.
        self.read_models = {group[0].fold.aggregate_type: tuple(item.name for item in group) for group in groups}
        self._spellings = {
            stream: re.compile(f"^{_BLANKS}({'|'.join(spellings)}){_BLANKS}$")
            for stream, spellings in _spellings(self.read_models).items()
        }

    def stream_of(self, aggregate_id: str, aggregate_type: str) -> str:
        """The type of the stream that a repair of this aggregate reads.

        Raises:
            UsageError: the id is no UUID, or no read model has that name.
        """
        stream = self._called(aggregate_type)
        if stream is None:
            known = ", ".join(name for names in self.read_models.values() for name in names)
            raise UsageError(f"There is no read model {aggregate_type!r} to repair.", hint=f"Give one of: {known}.")
        if not is_aggregate_id(aggregate_id):
            raise UsageError(f"{aggregate_id!r} is no aggregate id.", hint="Give a UUID in lower case with hyphens.")
        return stream

    def asked_for(self, task: Document) -> tuple[str, str | None]:
        """The type of the stream of a task that was read with `FIELDS`, or the reason why it cannot be repaired."""
        if task["size"] > LARGEST:
            return "", CANNOT_BE_WRITTEN
        if task["twice"]:
            return "", REPEATED_FIELD
        # A BSON code is a subclass of str.
        if type(task.get("task_type")) is not str or task["task_type"] != TASK_TYPE:
            return "", UNKNOWN_TASK_TYPE
        stream = self._called(task.get("aggregate_type"))
        if stream is None:
            return "", UNKNOWN_AGGREGATE_TYPE
        if not is_aggregate_id(task.get("aggregate_id")):
            return "", Reason.BAD_AGGREGATE_ID.value
        return stream, None

    def tasks_of(self, stream: str, ids: Sequence[str]) -> Document:
        """The filter for tasks that ask for these streams."""
        return {
            "aggregate_id": text({"$in": list(ids)}),
            "aggregate_type": text({"$regex": self._spellings[stream]}),
            "task_type": text({"$eq": TASK_TYPE}),
        }

    def _called(self, aggregate_type: Any) -> str | None:
        if type(aggregate_type) is not str:
            return None
        return next((name for name, spelling in self._spellings.items() if spelling.match(aggregate_type)), None)


def _spellings(read_models: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    """The spellings of each type of stream: the names of its read models, and its own if that is free."""
    taken = {name for names in read_models.values() for name in names}
    return {
        stream: [_in_any_case(name) for name in (*names, *({stream} - taken))] for stream, names in read_models.items()
    }


def _in_any_case(name: str) -> str:
    """A pattern that ignores the case of ASCII letters only; an option would also fold others, differently in MongoDB
    and Python.
    """
    return "".join(
        f"[{char.lower()}{char.upper()}]" if char.isascii() and char.isalpha() else re.escape(char) for char in name
    )
