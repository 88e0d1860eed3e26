"""What processes cost: memory that is theirs, shared pages by share (PSS), and time of the processor. Linux only."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_EVERY_SECONDS = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


def cpu_seconds(pid: int) -> float:
    """The time that a process has had of the processor."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


class Peak:
    """The most memory that a process and all that it started had at one time."""

    mib = 0.0

    @contextmanager
    def of(self, process: subprocess.Popen[str]) -> Iterator[None]:
        """Look while the block runs."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(_EVERY_SECONDS):
                self.mib = max(self.mib, sum(map(_pss_mib, _family(process.pid))))

        looking = threading.Thread(target=look)
        looking.start()
        try:
            yield
        finally:
            ended.set()
            looking.join()


def _family(pid: int) -> Iterator[int]:
    yield pid
    with suppress(*_GONE):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _family(int(child))


def _pss_mib(pid: int) -> float:
    with suppress(*_GONE):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0
