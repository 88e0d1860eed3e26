"""How soon a pass begins, through Dagster and from the command line: seconds to its first read, and to its end.

A rebuild in place of right read models. Dagster has a daemon and a process for each run, as `dagster.yaml` says; its
seconds count from the launch of a run in the queue. The first read is what the server's profiler tells.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.driver import server_time
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines_tests.benchmarks.measuring import bench_server
from readmodel_pipelines_tests.benchmarks.reconcile import appended, fill
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.servers.dagster_daemon import Daemon
from readmodel_pipelines_tests.support.waiting import wait_until

_PARTITION = "chat"


def main() -> None:
    """Measure both and print each figure as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chats", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with bench_server() as settings, open_database(settings) as database, tempfile.TemporaryDirectory() as home:
        uri = settings.mongodb_uri
        os.environ["READMODEL_MONGODB_URI"] = uri.get_secret_value() if uri else ""
        os.environ["READMODEL_DATABASE"] = settings.database
        fill(database, settings, appended(arguments.chats))
        ReadModelProjector(database, settings).rebuild_all()
        database.command("profile", 2)
        for _ in range(arguments.rounds):
            _command_line(database)
        daemon = Daemon(Path(home))
        daemon.start()
        try:
            for _ in range(arguments.rounds):
                _through_dagster(database, daemon)
        finally:
            daemon.end()


def _command_line(database: Mongo) -> None:
    began = server_time(database)
    command = [sys.executable, "-m", "readmodel_pipelines.cli.main", "rebuild-readmodel", "--type", "chat", "--all"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _tell("command line", database, began, server_time(database))


def _through_dagster(database: Mongo, daemon: Daemon) -> None:
    before = {run.run_id for run in daemon.instance.get_runs()}
    launched = time.time()
    daemon.backfill("rebuild_read_models", [_PARTITION], {})

    def ended() -> list[dg.RunRecord]:
        records = daemon.instance.get_run_records()
        return [item for item in records if item.dagster_run.run_id not in before and item.dagster_run.is_finished]

    wait_until(lambda: bool(ended()))
    (record,) = ended()
    if not record.dagster_run.is_success:
        raise SystemExit("the run did not succeed")
    queued = record.create_timestamp.timestamp()
    _tell("dagster", database, datetime.fromtimestamp(queued, UTC), datetime.fromtimestamp(record.end_time or 0, UTC))
    print(f"{'':14} {queued - launched:6.2f} s from asking for a backfill to its run in the queue", flush=True)


def _tell(what: str, database: Mongo, began: datetime, ended: datetime) -> None:
    of_events = {"ns": f"{database.name}.events", "ts": {"$gte": began.replace(tzinfo=None)}}
    first = database["system.profile"].find_one(of_events, sort=[("ts", 1)]) or {}
    read = (first["ts"].replace(tzinfo=UTC) - began).total_seconds()
    print(f"{what:14} {read:6.2f} s to the first read, {(ended - began).total_seconds():6.2f} s to the end", flush=True)


if __name__ == "__main__":
    main()
