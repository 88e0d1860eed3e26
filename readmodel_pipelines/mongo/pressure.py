"""The server's load: whether a run should wait, because operations queue up or a secondary lags.

Reading it never fails a run. Without the right, there is a warning and the run continues. A server that does not answer
is no reason to wait, because the next read or write reports that better.
"""

from collections.abc import Collection, Mapping
from typing import Any

from readmodel_pipelines.mongo.driver import DENIED, Database, Document, OperationFailure, PyMongoError
from readmodel_pipelines.mongo.failures import is_glitch
from readmodel_pipelines.side_by_side import side_by_side

_STANDALONE = 76
# Most of the answer, and of the time that it takes.
_LEAN = {"metrics": 0, "tcmalloc": 0, "wiredTiger": 0}


class Pressure:
    """Reads the number of queued operations, and the lag of secondaries; 0 switches a limit off.

    A value that cannot be read is not read again.
    """

    def __init__(self, database: Database, *, max_queued: int, max_lag_seconds: float) -> None:
        self._admin = database.client.admin
        self._max_queued = max_queued
        self._max_lag_seconds = max_lag_seconds
        self._not_asked: dict[str, str] = {}

    def reason_to_wait(self) -> str:
        """The reason why a run should wait now; empty if it need not."""
        return self._queue() or self._lag()

    @property
    def warning(self) -> str:
        """The values that cannot be read, with reason and remedy; empty if all can."""
        told = [f"{command}: {why}" for command, why in self._not_asked.items() if why]
        if not told:
            return ""
        return (
            f"The server's load is not fully watched ({'; '.join(told)}). "
            "Give the user the role that `readmodel rights pacing` prints as well, or set the limit to 0."
        )

    def _queue(self) -> str:
        if self._max_queued <= 0:
            return ""
        status = self._ask("serverStatus", **_LEAN)
        if status and "globalLock" not in status:
            self._not_asked["serverStatus"] = "a mongos does not report its queue"
        queued = int(status.get("globalLock", {}).get("currentQueue", {}).get("total", 0))
        if queued <= self._max_queued:
            return ""
        return f"{queued:,} operations are queued on the server (limit {self._max_queued:,})"

    def _lag(self) -> str:
        if self._max_lag_seconds <= 0:
            return ""
        status, config = side_by_side(lambda: self._ask("replSetGetStatus"), lambda: self._ask("replSetGetConfig"))
        lag = lag_seconds(status, delayed_members(config))
        if lag <= self._max_lag_seconds:
            return ""
        return f"a secondary is {lag:,.0f} s behind (limit {self._max_lag_seconds:g} s)"

    def _ask(self, command: str, **options: Any) -> Document:
        """The server's answer; empty without one."""
        if command in self._not_asked:
            return {}
        try:
            return self._admin.command(command, **options)
        except PyMongoError as error:
            if not isinstance(error, OperationFailure) or is_glitch(error):
                return {}
            # A standalone server has no secondaries: no warning. The server's message for a missing right is half a
            # page long.
            words = {**DENIED, _STANDALONE: ""}
            self._not_asked[command] = words.get(error.code or 0, str((error.details or {}).get("errmsg")))
            return {}


def lag_seconds(status: Mapping[str, Any], delayed: Collection[int] = ()) -> float:
    """The lag of the slowest secondary behind the primary in seconds, from the answer to `replSetGetStatus`.

    0 without a primary or a secondary. Members that are down, or that start, do not count.
    """
    members = status.get("members", ())
    ahead = [item["optimeDate"] for item in members if item.get("stateStr") == "PRIMARY"]
    behind = [
        item["optimeDate"]
        for item in members
        if item.get("stateStr") == "SECONDARY" and item["_id"] not in delayed and "optimeDate" in item
    ]
    return max(0.0, (max(ahead) - min(behind)).total_seconds()) if ahead and behind else 0.0


def delayed_members(answer: Mapping[str, Any]) -> set[int]:
    """The members with an intended delay, from the answer to `replSetGetConfig`; a run would wait for them forever."""
    members = answer.get("config", {}).get("members", ())
    # The second name is that of MongoDB before 5.0.
    return {item["_id"] for item in members if item.get("secondaryDelaySecs") or item.get("slaveDelay")}
