"""Every verb, with its line cut at each of its commands: on the way there and back, once and five times. An hour.

READMODEL_TEST_SHARE takes a part of the table: of all, or of the verbs in READMODEL_TEST_VERBS, comma-separated.
"""

import os
import random
from collections import Counter

import pytest

from readmodel_pipelines import spread
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.servers.faulty_line import Cut, faulty_line
from readmodel_pipelines_tests.support.trials.glitches import VERBS, cuts_of, over, run

SHARE = float(os.environ.get("READMODEL_TEST_SHARE") or 1)
NAMED = [name for name in os.environ.get("READMODEL_TEST_VERBS", "").split(",") if name]


def test_no_verb_notices_a_glitch_wherever_it_happens(mongodb_uri: str) -> None:
    chance = random.Random(1)
    server = Settings(mongodb_uri=mongodb_uri, failover_seconds=60)
    tried: Counter[str] = Counter()
    wrong: list[object] = []
    with faulty_line(mongodb_uri) as line:
        for verb in NAMED or VERBS:
            calm = run(line, server, verb)
            for cut in cuts_of(calm):
                if chance.random() < SHARE:
                    ended = run(line, server, verb, cut)
                    tried[verb] += 1
                    if (ended.given, ended.lies) != (calm.given, calm.lies):
                        wrong.append((verb, cut))
            print(verb, tried[verb], wrong)
    assert not wrong


@pytest.mark.parametrize("command", ["find", "getMore", "update", "insert", "aggregate"])
def test_what_worker_processes_meet_is_outlasted_by_each(
    mongodb_uri: str, scene: Scene, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(spread, "EVENTS_WORTH_A_PROCESS", 50)
    chats = scene.fill(60)
    scene.chats.update_many({"chat_id": {"$in": chats[::7]}}, {"$set": {"title": "wrong"}})
    own = scene.settings.model_copy(update={"workers": 2, "grace_seconds": 0.0})
    with faulty_line(mongodb_uri) as line, open_database(over(line, own)) as database:
        far = Scene(database, over(line, own))
        with line.cut(None):
            calm = far.verify()
            number = line.seen[command]
        for place in range(1, number + 1, max(1, number // 8)):
            with line.cut(Cut(command, place, "reply", 5)):
                assert far.verify().as_json()["read_models"] == calm.as_json()["read_models"], place
        with line.cut(Cut(command, number // 2 + 1, "reply", 5)):
            summary = far.rebuild()
            assert line.cuts
        assert (summary.ok, summary.read_models["chats_read_model"].replaced) == (True, len(chats[::7]))
        assert far.verify().ok
