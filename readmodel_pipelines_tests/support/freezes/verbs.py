"""The verbs that write, each with what comes before it, and with whoever does the work in its place while it sleeps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from readmodel_pipelines import RepairWorker
from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.rebuild import RebuildRequest, abort, rebuild, roll_back
from readmodel_pipelines.rebuild.request import Slice
from readmodel_pipelines.rebuild_state import Strategy
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.verification.coverage import Coverage
from readmodel_pipelines.verification.verify import VerificationRequest, verify
from readmodel_pipelines_tests.support.at_a_moment import killed_at
from readmodel_pipelines_tests.support.scene import Scene, found_in
from readmodel_pipelines_tests.support.verbs.repairing import put, task
from readmodel_pipelines_tests.support.verbs.verifying import look

Act = Callable[[Database, Settings, str], Any]
"""Does something, to the rebuild of that id where there is one; gives a summary, or a record."""


@dataclass(frozen=True)
class Verb:
    """`before` gives the id of the rebuild that it is about; each of `instead` may be done in its place.

    `rebuilds` says that read models are right after that. Runs of slices, which are `shared`, may end together.
    """

    before: Callable[[Scene], str]
    act: Act
    instead: Mapping[str, Act]
    rebuilds: bool = True
    shared: bool = False


def _rebuild(strategy: Strategy, *, resume: bool = False, part: Slice | None = None) -> Act:
    def act(database: Database, settings: Settings, _: str) -> Any:
        campaign = "" if part is None else "a backfill"
        return rebuild(database, settings, [], RebuildRequest(strategy, resume, slice=part, campaign=campaign))

    return act


def _roll_back(database: Database, settings: Settings, rebuild_id: str) -> Any:
    return roll_back(database, settings, rebuild_id)


def _abort(database: Database, settings: Settings, rebuild_id: str) -> Any:
    return abort(database, settings, rebuild_id)


def _rebuilt_or_rolled_back(database: Database, settings: Settings, rebuild_id: str) -> Any:
    """Anew, but where a rollback has to be ended first."""
    try:
        return _rebuild("shadow")(database, settings, rebuild_id)
    except ReadModelError:
        return _roll_back(database, settings, rebuild_id)


def _repair(database: Database, settings: Settings, _: str) -> Any:
    return RepairWorker(database, settings).work()


def _verify(database: Database, settings: Settings, _: str) -> Any:
    return verify(database, settings, [], VerificationRequest(Coverage(), enqueue_repairs=True))


def _nothing(_: Scene) -> str:
    return ""


def _verified(scene: Scene) -> str:
    # What is done for the first time writes more.
    look(scene)
    return ""


def _queued(scene: Scene) -> str:
    put(scene, *(task(item["chat_id"]) for item in scene.chats.find()))
    return ""


def _done(scene: Scene) -> str:
    return _id_of(rebuild(scene.database, scene.settings, [], RebuildRequest("shadow")))


def _interrupted(scene: Scene) -> str:
    with killed_at(Moment.COPY_MADE):
        rebuild(scene.database, scene.settings, [], RebuildRequest("shadow"))
    return str(found_in(scene.database.readmodel_rebuilds, {"state": "finishing"})["_id"])


def _half_done(scene: Scene) -> str:
    return _id_of(_rebuild("shadow", resume=True, part=Slice(1, 2))(scene.database, scene.settings, ""))


def _id_of(summary: Any) -> str:
    return str(summary.about["rebuild"])


_SHADOW, _IN_PLACE = _rebuild("shadow"), _rebuild("in_place")
_RESUMED = _rebuild("shadow", resume=True)
_SECOND = _rebuild("shadow", resume=True, part=Slice(2, 2))
_FIRST = _rebuild("shadow", resume=True, part=Slice(1, 2))

VERBS: Mapping[str, Verb] = {
    "in place": Verb(
        _nothing, _IN_PLACE, {"resumed": _rebuild("in_place", resume=True), "anew": _IN_PLACE, "a shadow": _SHADOW}
    ),
    "shadow": Verb(_nothing, _SHADOW, {"resumed": _RESUMED, "anew": _SHADOW, "in place": _IN_PLACE}),
    "resumed shadow": Verb(_interrupted, _RESUMED, {"resumed": _RESUMED, "anew": _SHADOW}),
    "slice": Verb(_half_done, _SECOND, {"again": _SECOND, "the other one": _FIRST, "anew": _SHADOW}, shared=True),
    "rollback": Verb(_done, _roll_back, {"again": _roll_back, "a shadow": _rebuilt_or_rolled_back}, rebuilds=False),
    "abort": Verb(_interrupted, _abort, {"resumed": _RESUMED, "anew": _SHADOW}),
    "repair": Verb(_queued, _repair, {"again": _repair, "in place": _IN_PLACE}, rebuilds=False),
    "enqueue": Verb(_verified, _verify, {"again": _verify, "in place": _IN_PLACE}, rebuilds=False),
}
