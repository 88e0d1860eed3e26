"""Random read models beside a unique index of somebody else's: streams and documents that want one another's values."""

import uuid
from collections.abc import Sequence
from random import Random
from typing import Any

from pymongo.errors import DuplicateKeyError

from readmodel_pipelines_tests.support.scene import Scene

CASELESS = {"locale": "en", "strength": 2}
INDEXES: dict[str, tuple[Any, dict[str, Any]]] = {
    "a field": ("title", {}),
    "two fields": ([("workspace_id", 1), ("title", 1)], {}),
    "caseless": ("title", {"collation": CASELESS}),
    "some of them": ("title", {"partialFilterExpression": {"type": "task"}}),
    "sparse": ("severity", {"sparse": True}),
    "an array": ("participants", {}),
    "with an array": ([("type", 1), ("participants", 1)], {}),
}
_TITLES = ("a", "b", "c", "A", "d")
_USERS = "uvwx"


def fill_beside(scene: Scene, index: str, seed: int) -> None:
    """Streams, and chats of which some are missing, wrong, or of no stream, as far as the index lets them in."""
    random = Random(f"{seed} {index}")
    scene.index()
    for _ in range(random.randint(2, 8)):
        scene.chat(random.choice(_TITLES), *_events(random), id=_id(random))
    scene.build()
    right = list(scene.chats.find())
    scene.chats.delete_many({})
    keys, options = INDEXES[index]
    scene.chats.create_index(keys, unique=True, name="theirs", **options)
    for document in random.sample(right, len(right)):
        if random.random() < 0.25:
            continue
        if random.random() < 0.6:
            document["title"] = random.choice(_TITLES)
            document["participants"] = random.sample(_USERS, random.randint(0, 3))
        if random.random() < 0.1:
            document["chat_id"] = _id(random)
        try:
            scene.chats.insert_one(document)
        except DuplicateKeyError:
            continue


def _id(random: Random) -> str:
    return str(uuid.UUID(int=random.getrandbits(128), version=4))


def _events(random: Random) -> Sequence[tuple[str, dict[str, Any]]]:
    kinds = (
        lambda: ("chat.renamed", {"new_title": random.choice(_TITLES)}),
        lambda: ("chat.participant_added", {"user_id": random.choice(_USERS)}),
        lambda: ("chat.severity_set", {"new_severity": random.choice(("x", "y", ""))}),
    )
    events = [random.choice(kinds)() for _ in range(random.randint(0, 2))]
    return [*events, ("chat.deleted", {})] if random.random() < 0.15 else events
