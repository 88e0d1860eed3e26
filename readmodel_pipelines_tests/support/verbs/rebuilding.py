"""What the tests of full rebuilds share: a way to rebuild, the records of it, what it should not leave behind."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo.errors import OperationFailure

from readmodel_pipelines.mongo.names import LEASES, REBUILDS
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines_tests.support.scene import Scene

KilledAfter = Callable[..., None]
"""A full rebuild, with these options, that dies after so many batches."""

BOTH = ("chats_read_model", "tasks_read_model")
STANDALONE = OperationFailure("the $changeStream stage is only supported on replica sets", 40573)
OTHER_TITLE = ("chat.renamed", {"new_title": "Told meanwhile", "old_title": "", "renamed_by": "u"})


def full(scene: Scene, *names: str, **options: Any) -> Summary:
    return rebuild(scene.database, scene.settings, names, RebuildRequest(**options))


def in_shadow(scene: Scene, *names: str, **options: Any) -> Summary:
    return full(scene, *names, strategy="shadow", **options)


def taken_over(scene: Scene) -> None:
    """All leases, as by a run that finds them expired."""
    theirs = {"nonce": "theirs", "holder": "somebody else", "given_back": False, "seconds": 300.0}
    until = {"expires_at": datetime.now(UTC) + timedelta(minutes=5)}
    scene.database[LEASES].update_many({}, {"$set": {**theirs, **until}, "$inc": {"token": 1}})


def leftovers(scene: Scene) -> list[str]:
    """Shadows and keys that a rebuild should not leave behind, and leases that somebody still holds."""
    names = [name for name in scene.database.list_collection_names() if name.startswith("readmodel_shadow")]
    names += [name for name in ("readmodel_deferred", "readmodel_touched") if scene.database[name].find_one({})]
    held = scene.database.readmodel_leases.find({"expires_at": {"$gt": datetime.now(UTC)}})
    return sorted(names) + [lease["_id"] for lease in held]


def copies(scene: Scene) -> list[str]:
    """Shadows, and copies of what was before."""
    return sorted(
        name
        for name in scene.database.list_collection_names()
        if name.startswith(("readmodel_shadow", "readmodel_before"))
    )


def records(scene: Scene) -> list[dict[str, Any]]:
    return list(scene.database[REBUILDS].find({"kind": "rebuild"}).sort("started_at"))
