"""To freeze this process as a paused virtual machine is frozen: right before a command that writes is sent.

Whoever started it wakes it up. Nothing in the process knows of it: every thread stands still, and every clock but its
own goes on.
"""

import ctypes
import os
import random
import signal
from pathlib import Path
from typing import Any

from pymongo import monitoring

WRITES = {
    *("insert", "update", "delete", "findAndModify", "bulkWrite", "commitTransaction"),
    *("create", "createIndexes", "drop", "renameCollection"),
}
_PR_SET_PDEATHSIG = 1


class FreezesBeforeWrites(monitoring.CommandListener):
    """Freezes before a share of the commands that write."""

    def __init__(self, seed: object, share: float) -> None:
        self._chance = random.Random(f"{seed}")
        self._share = share

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if writes(event) and self._chance.random() < self._share:
            os.kill(os.getpid(), signal.SIGSTOP)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...


def writes(event: monitoring.CommandStartedEvent) -> bool:
    if event.command_name == "aggregate":
        stages: Any = event.command.get("pipeline") or [{}]
        return bool({"$out", "$merge"} & set(stages[-1]))
    return event.command_name in WRITES


def is_frozen(pid: int) -> bool:
    """Whether the process stands still."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def wake(pid: int) -> None:
    """Let it go on."""
    os.kill(pid, signal.SIGCONT)


def end_with_parent() -> None:
    """This process is killed when the one that started it ends, even while it is frozen."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
