"""One verb, run once in a process of its own and measured from inside; `table.py` starts it, for either engine.

Says its numbers as a line of JSON. It goes by what the engine shows in public, so that an older engine can be measured.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from pymongo import monitoring

from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines.settings import Settings, load_settings
from readmodel_pipelines.verification.verify import VerificationRequest, verify
from readmodel_pipelines_tests.support.round_trips import RoundTrips

VERBS: dict[str, Callable[[Any, Settings], Any]] = {
    "rebuild": lambda database, settings: rebuild(database, settings, [], RebuildRequest()),
    "shadow": lambda database, settings: rebuild(database, settings, [], RebuildRequest("shadow")),
    "verify": lambda database, settings: verify(database, settings, [], VerificationRequest()),
    "versions": lambda database, settings: verify(database, settings, [], VerificationRequest(tier="versions")),
}


def main() -> None:
    """Run the verb that the command line names."""
    listening, settings = RoundTrips(), load_settings()
    monitoring.register(listening)
    cpu, started = _cpu_seconds(), time.perf_counter()
    with listening.counted(), open_database(settings) as database:
        summary = VERBS[sys.argv[1]](database, settings)
    seconds = time.perf_counter() - started
    told = {
        "seconds": seconds,
        "events": summary.events,
        "round_trips": listening.asked.total(),
        "client_cpu": _cpu_seconds() - cpu,
        "wrong": sum(counts.discrepancies for counts in summary.read_models.values()),
    }
    print(json.dumps(told))


def _cpu_seconds() -> float:
    """Of this process, and of its workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(item.ru_utime + item.ru_stime for item in used)


if __name__ == "__main__":
    main()
