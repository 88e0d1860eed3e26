"""Full passes that read in natural order, through a spool, come to what those in order of the index come to.

`--read-order scan` runs all other tests so.
"""

from pathlib import Path
from typing import Any

import pytest
from bson import DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp

from readmodel_pipelines import spread
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.mongo import read_order
from readmodel_pipelines.mongo.changes import HistoryLost
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.read_order import reading_of
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.pacing import Window
from readmodel_pipelines.projections.chat import CHAT_FOLD
from readmodel_pipelines.projections.registry import built_in
from readmodel_pipelines.reading import spooled
from readmodel_pipelines.reconcile.ranges import IdRange
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.spool import sorted_file
from readmodel_pipelines.spool.folder import NoRoomToSpool
from readmodel_pipelines.spool.sorted_file import SortedFileWriter
from readmodel_pipelines_tests.integration.test_values import put_document
from readmodel_pipelines_tests.support.at_a_moment import At, once, raises
from readmodel_pipelines_tests.support.campaign.trial import Trial
from readmodel_pipelines_tests.support.grammar import string
from readmodel_pipelines_tests.support.scene import Scene, event, typed, uuid
from readmodel_pipelines_tests.support.verbs.rebuilding import KilledAfter, full, records


@pytest.fixture
def spooling(scene: Scene, tmp_path: Path) -> Scene:
    """Full passes of this scene go through a spool."""
    scene.settings = scene.settings.model_copy(update={"read_order": "scan", "spool_dir": tmp_path / "spool"})
    return scene


@pytest.fixture
def nothing_left(spooling: Scene) -> Any:
    yield
    assert spooling.settings.spool_dir is not None
    assert not list(spooling.settings.spool_dir.iterdir())


def told(summary: Summary) -> Any:
    counts = {name: each.as_dict() for name, each in summary.read_models.items()}
    return counts, sorted(repr(finding.as_json()) for finding in summary.findings)


@pytest.mark.usefixtures("nothing_left")
def test_every_verb_finds_and_mends_the_same_wherever_it_reads(spooling: Scene) -> None:
    scene = spooling
    by_index: Any = {"read_order": "index"}
    scene.settings = scene.settings.model_copy(update={"max_delete_share": 1.0})
    trial = Trial(scene.database, scene.settings, seed=5, number=40)
    trial.add_events()
    trial.break_everything()
    assert told(scene.projector().verify_all()) == told(scene.projector(**by_index).verify_all())
    dry = scene.projector().rebuild_all(dry_run=True)
    assert told(dry) == told(scene.projector(**by_index).rebuild_all(dry_run=True))
    rebuilt = scene.projector().rebuild_all()
    assert rebuilt.read_order
    assert rebuilt.as_json()["read_order"] == rebuilt.read_order
    assert sum(counts.written for counts in rebuilt.read_models.values())
    left = scene.projector(**by_index).verify_all()
    assert {finding.outcome for finding in left.findings} == {"malformed"}


@pytest.mark.each_once
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("workers", [1, 2])
def test_ranges_are_done_side_by_side_from_one_spool(
    spooling: Scene, strategy: Any, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread, "EVENTS_WORTH_A_PROCESS", 1)
    spooling.settings = spooling.settings.model_copy(update={"workers": workers})
    chats = spooling.fill(40)
    right = spooling.everything()
    spooling.chats.update_many({"chat_id": {"$in": chats[::3]}}, {"$set": {"title": "damaged"}})
    spooling.tasks.update_many({"chat_id": {"$in": chats[::4]}}, {"$set": {"title": "damaged"}})
    assert not spooling.verify().ok
    assert full(spooling, strategy=strategy).ok
    assert spooling.everything() == right
    assert spooling.verify().ok


@pytest.mark.usefixtures("nothing_left")
def test_a_window_that_ends_before_the_spool_is_whole_is_told_with_the_setting_that_helps(
    spooling: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    spooling.fill(10)
    folder = spooling.settings.spool_dir
    assert folder is not None
    monkeypatch.setattr(Window, "is_open", lambda *_: not folder.exists() or not any(folder.iterdir()))
    paused = full(spooling, off_peak=True)
    assert paused.about["state"] == "paused"
    assert [warning for warning in paused.warnings if "READMODEL_READ_ORDER" in warning]


@pytest.mark.usefixtures("nothing_left")
def test_what_changes_behind_the_spool_is_caught_up_with(spooling: Scene, strategy: Any, at: At) -> None:
    chats = spooling.fill(10)
    spooling.chats.update_many({}, {"$set": {"title": "damaged"}})

    def go_on() -> None:
        spooling.append(chats[0], ("chat.renamed", {"new_title": "newer"}))
        spooling.chat("new")

    at(Moment.SPOOLED, once(go_on))
    assert full(spooling, strategy=strategy).ok
    assert spooling.verify().ok
    assert spooling.chats.count_documents({"title": {"$in": ["newer", "new"]}}) == 2


def test_a_second_look_compares_with_the_shadow_and_not_with_what_is_live(
    spooling: Scene, strategy: Any, at: At
) -> None:
    chats = spooling.fill(6)

    def go_on() -> None:
        at(Moment.HISTORY_READ, once(raises(HistoryLost("it is too short"))))
        spooling.append(chats[0], ("chat.renamed", {"new_title": "newer"}))

    at(Moment.SPOOLED, once(go_on))
    # The application is a moment behind: the shadow lacks that event, and the live document does not.
    at(Moment.SECOND_PASS_BEGUN, once(lambda: spooling.rebuild_one(chats[0])))
    assert full(spooling, strategy=strategy).ok
    assert [record["passes"] for record in records(spooling)] == [2]
    assert spooling.chats.count_documents({"title": "newer"}) == 1
    assert spooling.verify().ok


def test_an_event_that_came_too_late_for_the_spool_makes_no_stream_malformed(spooling: Scene, at: At) -> None:
    (chat,) = spooling.fill(1)
    last = spooling.events.count_documents({"aggregate_id": chat})
    late, newest = (
        event(chat, "Chat", last + number, "chat.renamed", {"new_title": f"title {number}"}) for number in (1, 2)
    )
    spooling.add([newest])
    at(Moment.SPOOLED, once(lambda: spooling.add([late])))
    summary = full(spooling)
    assert summary.ok
    assert summary.read_models["chats_read_model"].malformed == 0
    assert spooling.chats.count_documents({"title": "title 2"}) == 1


def test_a_killed_rebuild_goes_on_with_a_spool_of_the_rest(spooling: Scene, killed_after: KilledAfter) -> None:
    spooling.fill(30)
    right = spooling.everything()
    spooling.chats.update_many({}, {"$set": {"title": "damaged"}})
    killed_after(3)
    summary = full(spooling, resume=True)
    assert summary.ok
    assert summary.read_models["chats_read_model"].replaced == 30
    assert spooling.everything() == right
    assert [record["runs"] for record in records(spooling)] == [2]


def test_a_collection_that_another_one_replaced_is_looked_at_again(spooling: Scene, at: At) -> None:
    chats = spooling.fill(6)
    right = spooling.everything()

    def replace() -> None:
        spooling.chats.drop()
        spooling.index()
        spooling.chats.insert_one({"chat_id": chats[0], "title": "another"})

    at(Moment.SPOOLED, once(replace))
    assert full(spooling).ok
    assert [sorted(found) for found in spooling.everything()] == [sorted(found) for found in right]
    assert spooling.verify().ok


@pytest.mark.usefixtures("nothing_left")
def test_a_spool_is_gone_whatever_ended_the_pass(spooling: Scene, at: At) -> None:
    spooling.fill(2)
    at(Moment.SPOOLED, once(raises(KeyError())))
    with pytest.raises(KeyError):
        spooling.verify()


def test_what_is_held_while_a_spool_is_read_goes_by_the_size_of_each_collection(
    spooling: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    spooling.fill(6)
    expected: dict[str, int] = {}

    class Told(SortedFileWriter):
        def __init__(self, path: Path, about_bytes: int) -> None:
            expected[path.name] = about_bytes
            super().__init__(path, about_bytes)

    monkeypatch.setattr(sorted_file, "SortedFileWriter", Told)
    assert spooling.verify().ok
    stored = {"events": spooling.events, **{f"of.{each.name}": each for each in (spooling.chats, spooling.tasks)}}
    assert expected == {
        name: spooling.database.command("collStats", each.name)["size"] for name, each in stored.items()
    }


def test_without_room_a_spool_that_was_asked_for_is_refused(spooling: Scene, tmp_path: Path) -> None:
    spooling.fill(2)
    (tmp_path / "file").touch()
    spooling.settings = spooling.settings.model_copy(update={"spool_dir": tmp_path / "file"})
    with pytest.raises(NoRoomToSpool):
        spooling.verify()


def test_a_spool_has_the_order_of_the_index_whatever_a_version_is(spooling: Scene) -> None:
    scene = spooling
    scene.events.create_index([("aggregate_id", 1), ("version", 1)])
    versions: list[Any] = [
        *(3, 1, Int64(2), 2, 1.5, Decimal128("1.7"), float("nan"), Decimal128("sNaN"), float("-inf")),
        *(..., None, "x", "", [], [9, 0], {}),
        *(True, DatetimeMS(0), b"x", ObjectId(), Timestamp(1, 2), Regex("a"), MinKey(), MaxKey(), -(2**31), 5_000),
    ]
    for chat_id in (uuid("b"), uuid("a"), "short", "", "\u00e9"):
        scene.put(*((version, "chat.renamed", {"new_title": ""}) for version in versions), aggregate_id=chat_id)
    by_index = typed(list(EventStore(scene.events).read(CHAT_FOLD)))
    with spooled(Store(scene.database, scene.settings, built_in("chat"))) as spools:
        store = EventStore(scene.events)
        store.spooled = spools.events
        assert typed(list(store.read(CHAT_FOLD))) == by_index
        within = IdRange(*sorted((uuid("a"), uuid("b"))))
        by_index = typed(list(EventStore(scene.events).read(CHAT_FOLD, within=within)))
        assert typed(list(store.read(CHAT_FOLD, within=within))) == by_index
        assert len(by_index) == len(versions)


def test_a_document_whose_key_stands_twice_comes_where_the_index_has_it(spooling: Scene, strategy: Any) -> None:
    chats = spooling.fill(6)
    right = spooling.everything()
    for number, other in enumerate((chats[0], chats[-1], "another")):
        put_document(spooling, "chats_read_model", chats[number + 1], "chat_id", string(other), twice=True)
    assert told(spooling.projector().verify_all()) == told(spooling.projector(read_order="index").verify_all())
    assert full(spooling, strategy=strategy, allow_deletions=True).ok
    assert [sorted(found) for found in spooling.everything()] == [sorted(found) for found in right]
    assert spooling.verify().ok


class TestTheOrderThatIsChosen:
    @pytest.fixture(autouse=True)
    def _many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(read_order, "MANY_EVENTS", 1)

    @pytest.fixture
    def larger_than_the_cache(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(read_order, "_FILLED", 1e-9)

    def test_is_that_of_the_index_while_the_events_fit_into_the_cache(self, scene: Scene) -> None:
        scene.fill(3)
        assert scene.verify().read_order == reading_of(scene.events, scene.settings).said
        assert reading_of(scene.events, scene.settings).order == "index"

    @pytest.mark.usefixtures("larger_than_the_cache")
    def test_is_the_natural_one_beyond(self, scene: Scene) -> None:
        scene.fill(3)
        reading = reading_of(scene.events, scene.settings)
        assert reading.order == "scan"
        assert scene.verify().read_order == reading.said

    @pytest.mark.usefixtures("larger_than_the_cache")
    def test_is_that_of_the_index_where_there_is_no_room(self, scene: Scene, tmp_path: Path) -> None:
        scene.fill(3)
        (tmp_path / "file").touch()
        scene.settings = scene.settings.model_copy(update={"spool_dir": tmp_path / "file"})
        summary = scene.verify()
        assert summary.ok
        assert "index" in summary.read_order

    @pytest.mark.usefixtures("larger_than_the_cache")
    def test_is_that_of_the_index_where_the_room_goes_while_it_is_spooled(
        self, scene: Scene, strategy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scene.fill(3)
        scene.settings = scene.settings.model_copy(update={"spool_dir": tmp_path / "spool"})
        monkeypatch.setattr(SortedFileWriter, "finish", lambda _: raises(OSError(28, "No space left on device"))())
        summary = full(scene, strategy=strategy)
        assert summary.ok
        assert "index" in summary.read_order
        assert not list((tmp_path / "spool").iterdir())

    @pytest.mark.usefixtures("larger_than_the_cache")
    def test_is_that_of_the_index_for_the_last_few(self, scene: Scene) -> None:
        scene.fill(3)
        assert reading_of(scene.events, scene.settings, share=0.01).order == "index"

    @pytest.mark.usefixtures("larger_than_the_cache")
    def test_is_that_which_a_setting_names(self, scene: Scene) -> None:
        scene.fill(3)
        assert reading_of(scene.events, scene.settings.model_copy(update={"read_order": "index"})).order == "index"
