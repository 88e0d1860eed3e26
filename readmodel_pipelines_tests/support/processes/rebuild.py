"""A full rebuild in a process of its own, to be killed: `python -m ….support.processes.rebuild URI NAME`.

Resumes what there is. Few events are worth a process here, so that a small store is rebuilt by several.
"""

import argparse
import json

from readmodel_pipelines import spread
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines.settings import Settings


def main() -> None:
    """Rebuild and tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("uri")
    parser.add_argument("database")
    parser.add_argument("--strategy", default="in_place")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lease", type=float, default=0.5)
    parser.add_argument("--events-per-second", type=float, default=None)
    parser.add_argument("--worth", type=int, default=1_000, help="events that are worth a process")
    arguments = parser.parse_args()
    spread.EVENTS_WORTH_A_PROCESS = arguments.worth
    settings = Settings(
        mongodb_uri=arguments.uri,
        database=arguments.database,
        workers=arguments.workers,
        max_events_per_second=arguments.events_per_second,
        # Shorter than anybody may set it.
    ).model_copy(update={"lease_seconds": arguments.lease})
    with open_database(settings) as database:
        summary = rebuild(database, settings, [], RebuildRequest(arguments.strategy, resume=True))
    print(json.dumps(summary.as_json() | {"ok": summary.ok}))


if __name__ == "__main__":
    main()
