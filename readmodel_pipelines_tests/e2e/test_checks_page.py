"""The checks of a read model as somebody sees them: on the page of its asset, in a browser."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from readmodel_pipelines.definitions import defs
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.e2e.browser import browser_page
from readmodel_pipelines_tests.e2e.runs import SAMPLE, Mongo, with_events
from readmodel_pipelines_tests.e2e.web_ui import instance_at, web_ui

CHECKS = ("matches_events", "streams_intact", "is_fresh")


def test_the_page_of_an_asset_shows_its_checks_with_the_field_that_differs(
    database: Mongo, settings: Settings, tmp_path: Path
) -> None:
    with_events(database, settings, SAMPLE)
    assert ReadModelProjector(database, settings).rebuild_all().ok
    document = database.chats_read_model.find_one() or {}
    database.chats_read_model.update_one({"_id": document["_id"]}, {"$set": {"title": "not what events say"}})
    keys = {dg.AssetCheckKey(dg.AssetKey("chats_read_model"), check) for check in CHECKS}
    job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_check_selection=keys, asset_selection=set())
    with instance_at(tmp_path) as instance:
        job.execute_in_process(instance=instance)
    trouble: list[str] = []
    with web_ui(tmp_path) as address, browser_page() as page:
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.goto(f"{address}/assets/chats_read_model?view=checks&checkDetail=matches_events")
        page.get_by_text("not what events say").first.wait_for()
        page.get_by_text("is_fresh").first.wait_for()
        shown = page.locator("body").inner_text()
    assert trouble == []
    for said in (*CHECKS, document["chat_id"], "different", "title"):
        assert said in shown, said
