"""Plays one trial of the campaign again, and makes it smaller: fewer and fewer streams that still disagree.

python -m readmodel_pipelines_tests.support.campaign.replay SEED [STREAMS] [--smaller]
"""

import argparse
import logging
from collections.abc import Callable, Collection

from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.campaign.trial import Disagreement, Trial
from readmodel_pipelines_tests.support.campaign.verbs import play
from readmodel_pipelines_tests.support.servers.embedded import own_server


def disagreement(settings: Settings, seed: int, number: int, only: Collection[int]) -> str:
    """What a trial of these streams says; empty when all agree."""
    with open_database(settings) as database:
        database.client.drop_database(database.name)
        try:
            play(Trial(database, settings, seed, number, only=frozenset(only)))
        except Disagreement as error:
            return str(error)
    return ""


def smaller(streams: list[int], disagrees: Callable[[list[int]], bool]) -> list[int]:
    """As few of the streams as will do: what is left out of them, half, a quarter, one, makes all agree."""
    size = len(streams) // 2
    while size:
        for at in range(0, len(streams), size):
            fewer = streams[:at] + streams[at + size :]
            if fewer and disagrees(fewer):
                streams = fewer
                break
        else:
            size //= 2
    return streams


def main() -> None:
    """Play, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("streams", type=int, nargs="?", default=500)
    parser.add_argument("--smaller", action="store_true")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with own_server() as settings:
        every = list(range(asked.streams))
        said = disagreement(settings, asked.seed, asked.streams, every)
        if said and asked.smaller:
            few = smaller(every, lambda some: bool(disagreement(settings, asked.seed, asked.streams, some)))
            said = f"{disagreement(settings, asked.seed, asked.streams, few)}\nstreams {few}"
    print(said or "All agree.")


if __name__ == "__main__":
    main()
