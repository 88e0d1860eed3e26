"""Whoever owns a read model changes its definition at some moment of a rebuild in a shadow: afterwards that holds."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from pymongo.collection import Collection

from readmodel_pipelines.moments import Moment, listening
from readmodel_pipelines_tests.support.at_a_moment import once
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.verbs.rebuilding import in_shadow

_DEFAULTS = {"validationLevel": "strict", "validationAction": "error"}

BEFORE_THE_GATE = (
    Moment.REBUILD_BEGUN,
    Moment.RANGES,
    Moment.SHADOW_COPY,
    Moment.BATCH_WRITTEN,
    Moment.RANGE_DONE,
    Moment.FINISH,
    Moment.SHADOW_INDEXES,
)
MOMENTS = (
    *BEFORE_THE_GATE,
    Moment.GATE,
    Moment.GATE_PASSED,
    Moment.COPY_MADE,
    Moment.LAST_LOOK_DONE,
    Moment.SWAP,
    Moment.SWAPPED,
)


Change = Callable[[Collection[Any]], object]


def index(name: str, *key: Any, **options: Any) -> Change:
    return lambda collection: collection.create_index(list(key), name=name, **options)


def dropped(name: str) -> Change:
    return lambda collection: collection.drop_index(name)


def _changed(**options: Any) -> Change:
    return lambda collection: collection.database.command("collMod", collection.name, **options)


def _one_after_another(*changes: Change) -> Change:
    return lambda collection: [change(collection) for change in changes]


def nothing(_: Collection[Any]) -> None:
    """It is as it was made."""


_VALIDATOR = {"chat_id": {"$type": "string"}}

INDEXES: Sequence[tuple[Change, Change]] = (
    (nothing, index("made", ("title", 1))),
    (nothing, index("of several fields", ("workspace_id", 1), ("title", -1))),
    (nothing, index("unique", ("chat_id", 1), ("title", 1), unique=True)),
    (nothing, index("with a filter", ("title", 1), partialFilterExpression={"is_public": True})),
    (nothing, index("sparse", ("severity", 1), sparse=True)),
    (nothing, index("made hidden", ("type", 1), hidden=True)),
    (nothing, index("with a collation", ("title", 1), collation={"locale": "de", "strength": 1})),
    (nothing, index("of words", ("title", "text"), weights={"title": 3})),
    (nothing, index("of every field", ("not_ours.$**", 1))),
    (nothing, index("of hashes", ("workspace_id", "hashed"))),
    (nothing, index("of places", ("where", "2dsphere"))),
    (index("dropped", ("z_index", 1)), dropped("dropped")),
    (index("other key", ("a", 1)), _one_after_another(dropped("other key"), index("other key", ("b", -1)))),
    (index("hidden", ("c", 1)), _changed(index={"name": "hidden", "hidden": True})),
    (
        index("unique by degrees", ("chat_id", 1), ("c", 1)),
        _one_after_another(
            _changed(index={"name": "unique by degrees", "prepareUnique": True}),
            _changed(index={"name": "unique by degrees", "unique": True}),
        ),
    ),
)
"""What there is before, and what is done to it."""

OPTIONS: Sequence[Sequence[tuple[Change, Change]]] = (
    (
        (nothing, _changed(validator=_VALIDATOR, validationLevel="moderate")),
        (nothing, _changed(changeStreamPreAndPostImages={"enabled": True})),
    ),
    (
        (_changed(validator=_VALIDATOR), _changed(validator={})),
        (
            _changed(changeStreamPreAndPostImages={"enabled": True}),
            _changed(changeStreamPreAndPostImages={"enabled": False}),
        ),
    ),
    ((_changed(validator=_VALIDATOR), _changed(validationAction="warn")),),
)
"""Those of a number go together."""

EXPIRING = index("expiring", ("expires", 1), expireAfterSeconds=3600)


def definition(collection: Collection[Any]) -> dict[str, Any]:
    """Options and indexes, however they were made."""
    indexes = {index["name"]: {**index, "key": list(index["key"].items())} for index in collection.list_indexes()}
    return {**_DEFAULTS, **collection.options(), "indexes": indexes}


def change_at(scene: Scene, changes: Sequence[tuple[Moment, Change, Change]]) -> None:
    """The definition that somebody makes at these moments of a rebuild is the one afterwards."""
    scene.fill(3)
    wanted = scene.database.wanted
    wanted.create_index("chat_id", unique=True)
    with ExitStack() as moments:
        for moment, before, change in changes:
            for collection in (scene.database.chats_read_model, wanted):
                before(collection)
            moments.enter_context(listening(moment, once(partial(change, scene.database.chats_read_model))))
            change(wanted)
        summary = in_shadow(scene, "chat")
    assert (summary.ok, summary.about["state"], summary.warnings) == (True, "done", [])
    assert definition(scene.chats) == definition(wanted)


def change_everything(scene: Scene, rotation: int) -> None:
    """Every kind of index and option is changed, each at a moment of its own; `rotation` says which."""
    changes = (*INDEXES, *OPTIONS[rotation % len(OPTIONS)])
    change_at(scene, [(MOMENTS[(at + rotation) % len(MOMENTS)], *change) for at, change in enumerate(changes)])
