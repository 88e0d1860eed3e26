"""Dagster's web UI as an operator uses it, in a browser, with its daemon, over a database that has its faults.

Everything is launched by clicks first, so that the daemon works on all of it at once; then each test looks at one
thing. The pictures in the documents are what these tests see: READMODEL_SCREENSHOTS=folder saves them.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pytest

from readmodel_pipelines import RepairQueue
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.driver import CODEC
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.environment import environment_of
from readmodel_pipelines_tests.support.pages.browser import browser_page, keep_screenshot
from readmodel_pipelines_tests.support.scene import Mongo, make_right
from readmodel_pipelines_tests.support.servers.dagster_web import Services, services
from readmodel_pipelines_tests.support.verbs.dagster_runs import CHATS, TASKS, with_events
from readmodel_pipelines_tests.support.waiting import wait_until

WRONG = "not what the events say"
JOBS = "locations/readmodel_pipelines/jobs"
REPAIRED = '"depth": [0, 0, 24, 0]'
"""The sensor's cursor once nothing is pending, in work or parked any more."""
_FOLLOW = """place => { history.pushState(null, "", place); dispatchEvent(new PopStateEvent("popstate")); }"""
NAVIGATION = 240
"""Its width; pictures leave it out."""


@dataclass
class Ui:
    """A browser at Dagster's pages, and what there is to be found behind them."""

    page: Any
    address: str
    database: Mongo
    mended_alone: str
    mended_with_all: str
    mended_by_slice: str
    trouble: list[str] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)

    def go(self, place: str) -> None:
        """As by a link: to load the whole program anew for each page costs more than all that the pages do."""
        if self.page.url.startswith(self.address):
            self.page.evaluate(_FOLLOW, f"/{place}")
        else:
            self.page.goto(f"{self.address}/{place}")

    def shows(self, text: str | re.Pattern[str]) -> None:
        """Wait until the page shows it; the machine may be slow."""
        self.page.get_by_text(text).locator("visible=true").first.wait_for()

    def click(self, button: str) -> None:
        """By its whole text: its accessible name has that of its icon, too."""
        self.page.locator("button", has_text=re.compile(rf"^\s*{button}\W*$")).first.click()

    def text(self) -> str:
        return str(self.page.locator("body").inner_text())

    def until(self, pattern: str, mark: str) -> None:
        """Wait until the text of the page matches, whose `mark` says that it is there; load it anew now and then."""
        for _ in range(30):
            self.shows(mark)
            for _ in range(20):
                if re.search(pattern, self.text(), re.DOTALL):
                    return
                self.page.wait_for_timeout(200)
            self.page.reload()
        pytest.fail(f"nothing matches {pattern!r} in: {self.text()}")

    def to_the_top(self, text: str) -> None:
        """Scroll what has this text to the upper end of what is seen."""
        self.page.get_by_text(text, exact=True).first.evaluate("element => element.scrollIntoView()")

    def picture(self, name: str, *, left: int = NAVIGATION, right: int = 0, bottom: int = 0) -> None:
        """Of what is seen, but for so many pixels at each side."""
        size = self.page.viewport_size
        clip = {"x": left, "y": 0, "width": size["width"] - left - right, "height": size["height"] - bottom}
        keep_screenshot(self.page, name, **clip)


@pytest.fixture(scope="module")
def settings(mongodb_uri: str) -> Settings:
    """One database for the module: the runs have it from the environment."""
    return Settings(mongodb_uri=mongodb_uri, database="flowra_ui")


@pytest.fixture(scope="module")
def started(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    environment = {
        **environment_of(settings),
        "READMODEL_SLICES": "2",
        "READMODEL_REPORTS_DIR": str(tmp_path_factory.mktemp("reports")),
    }
    with services(tmp_path_factory.mktemp("dagster"), environment) as running:
        yield running


@pytest.fixture(scope="module")
def opened(settings: Settings) -> Iterator[Mongo]:
    with open_database(settings) as found:
        yield found.with_options(codec_options=CODEC)
        found.client.drop_database(settings.database)


@pytest.fixture(scope="module")
def ui(started: Services, opened: Mongo, settings: Settings) -> Iterator[Ui]:
    wrong = _fill(opened, settings)
    started.start_web_server()
    with browser_page() as page:
        page.set_default_timeout(240_000)
        ui = Ui(page, started.address, opened, *wrong)
        page.on("pageerror", lambda error: ui.trouble.append(str(error)))
        _launch_everything(ui, started)
        yield ui
        assert ui.trouble == []


def _fill(database: Mongo, settings: Settings) -> tuple[str, str, str]:
    """Read models with faults, and a queue of repairs; gives the ids of chats and of a task that are wrong."""
    with_events(database, settings, list(chat_events(300, seed=7)))
    make_right(database, settings)
    tasks = [item["task_id"] for item in database[TASKS].find().sort("task_id").limit(25)]
    database[TASKS].update_many({"task_id": {"$in": tasks}}, {"$set": {"title": WRONG}})
    # A repair mends the chat of a task, too: these are left to others.
    titled = database[CHATS].find({"title": {"$ne": ""}, "chat_id": {"$nin": tasks}})
    chats = [item["chat_id"] for item in titled.sort("chat_id").limit(3)]
    database[CHATS].update_many({"chat_id": {"$in": chats}}, {"$set": {"title": WRONG}})
    database[CHATS].update_one({"chat_id": chats[2]}, {"$set": {"is_public": "yes"}})
    queue = RepairQueue(database, settings)
    for task_id in tasks[1:]:
        assert queue.add(task_id, "chat", "failed to operate on tasks_read_model: connection reset")
    return chats[0], chats[1], tasks[0]


def _launch_everything(ui: Ui, started: Services) -> None:
    ui.runs["by id"] = _launch_for_id(ui, ui.mended_alone)
    ui.runs["wrong id"] = _launch_for_id(ui, "6f1c")
    ui.go(f"assets/{CHATS}?view=checks&checkDetail=matches_events")
    ui.click("Execute")
    ui.shows("Launched run")
    _launch_backfill(ui)
    # Only now: it looks for backfills when it starts, and then every thirty seconds. A page that looks on costs more.
    ui.page.goto("about:blank")
    started.start_daemon()
    with dg.DagsterInstance.from_config(str(started.home)) as instance:
        wait_until(lambda: _all_is_done(instance), 240)


def _all_is_done(instance: dg.DagsterInstance) -> bool:
    """Two runs of an id, one of a check, one of the queue and two of slices; and a tick saw the queue drained."""
    ticked = [state.instigator_data for state in instance.all_instigator_state()]
    drained = any(REPAIRED in str(getattr(data, "cursor", "")) for data in ticked)
    return drained and sum(run.is_finished for run in instance.get_runs()) >= 6


def _launch_for_id(ui: Ui, aggregate_id: str) -> str:
    """Type the config of one aggregate over what the Launchpad has filled in; gives the run's id."""
    ui.go(f"{JOBS}/rebuild_aggregate/playground")
    editor = ui.page.locator(".CodeMirror").first
    editor.click()
    config = {"aggregate_id": aggregate_id, "aggregate_type": "chat", "dry_run": "false"}
    lines = [f"      {name}: {value}" for name, value in config.items()]
    ui.page.keyboard.press("Control+A")
    ui.page.keyboard.insert_text("\n".join(["ops:", "  rebuild_one_aggregate:", "    config:", *lines, ""]))
    ui.shows("No errors")
    if aggregate_id == ui.mended_alone:
        ui.page.mouse.move(600, 600)
        ui.page.locator("button:enabled", has_text="Launch Run").wait_for()
        ui.picture("launchpad")
    ui.click("Launch Run")
    ui.page.wait_for_url("**/runs/**")
    return str(ui.page.url).rpartition("/")[2]


def _launch_backfill(ui: Ui) -> None:
    ui.go(f"{JOBS}/rebuild_slices/partitions")
    ui.click("Launch backfill")
    ui.page.get_by_text("Select a partition or create one").click()
    for partition in ("task_01_of_02", "task_02_of_02"):
        ui.page.locator(f".dagster-popover >> text={partition} >> visible=true").first.click()
    ui.page.get_by_text("Launch rebuild_slices backfill").click()
    ui.click("Submit 2 runs")
    ui.shows("Created backfill")


def test_a_config_that_is_typed_into_the_launchpad_rebuilds_that_aggregate(ui: Ui) -> None:
    ui.go(f"runs/{ui.runs['by id']}")
    ui.shows("RUN_SUCCESS")
    for said in (ui.mended_alone, "different", "replaced"):
        ui.shows(said)
    assert (ui.database[CHATS].find_one({"chat_id": ui.mended_alone}) or {})["title"] != WRONG

    ui.go(f"runs?q[0]=tag:readmodel/aggregate_id={ui.mended_alone}")
    ui.shows(ui.runs["by id"][:8])
    assert ui.runs["wrong id"][:8] not in ui.text()


def test_a_wrong_id_is_answered_with_a_sentence_that_says_what_one_looks_like(ui: Ui) -> None:
    ui.go(f"runs/{ui.runs['wrong id']}")
    ui.shows("RUN_FAILURE")
    ui.shows(
        re.compile("'6f1c' is no aggregate id.*8-4-4-4-12 hexadecimal digits.*chat_id in chats_read_model", re.DOTALL)
    )


def test_a_check_shows_the_table_of_what_differs(ui: Ui) -> None:
    ui.go(f"assets/{CHATS}?view=checks&checkDetail=matches_events")
    ui.shows(re.compile("Materialize the asset"))
    ui.shows(WRONG)
    said = ui.text()
    for text in ("streams_intact", "is_fresh", ui.mended_with_all, "different", "expected", "actual"):
        assert text in said, text
    assert ui.page.evaluate("document.body.scrollWidth <= window.innerWidth"), "the table is as wide as the page"
    buttons = ui.page.locator("button", has_text=re.compile("Execute|Materialize")).all()
    boxes = [box for button in buttons if (box := button.bounding_box()) is not None]
    assert boxes
    assert all(box["x"] + box["width"] <= 1280 for box in boxes), "no value pushes a button off the screen"
    assert said.index("findings") < said.index("numbers"), "the findings come first"
    ui.to_the_top("Latest execution")
    ui.picture("check", left=NAVIGATION + 294, bottom=200)


# Half as dear as all the others together; they click a check, a config and a backfill.
@pytest.mark.whole
def test_materializing_an_asset_from_its_page_rebuilds_it(ui: Ui) -> None:
    ui.go(f"assets/{CHATS}")
    ui.click("Materialize")
    launched = ui.page.get_by_text(re.compile("Launched run [0-9a-f]{8}")).first.inner_text()
    # Anew, without what a page says of a launch for a while.
    ui.page.goto(f"{ui.address}/runs")
    ui.page.get_by_text(launched.split()[-1]).first.click()
    ui.shows("RUN_SUCCESS")
    ui.page.get_by_placeholder("Filter…").fill("type:ASSET_MATERIALIZATION")
    ui.click("View full message")
    ui.shows("some fields do not match the events")
    ui.picture("summary", left=112, right=112)
    ui.go(f"{ui.page.url.partition('?')[0].removeprefix(ui.address).strip('/')}?levels=info")
    ui.shows("Catch-up: ")
    ui.picture("run", bottom=220)
    assert ui.database[CHATS].count_documents({"title": WRONG}) == 0

    ui.go(f"assets/{CHATS}")
    ui.shows("Row count")
    assert "Never materialized" not in ui.text()
    ui.shows("newest_verification")
    # Those of the newest verification, whatever the last rebuild found.
    ui.shows("Latest check results")
    ui.picture("asset")
    ui.click("Plots")
    ui.shows("events_per_second")
    said = ui.text()
    assert not any(name in said for name in ("caught_up", "discrepancies", "superseded")), "only what a person follows"


def test_the_sensor_shows_its_ticks_and_the_run_that_it_launched(ui: Ui) -> None:
    ui.go("locations/readmodel_pipelines/sensors/repair_queue_sensor")
    ui.until(rf"Cursor\s+\{{{re.escape(REPAIRED)}.*1 run requested", mark="Latest tick")
    ui.picture("sensor")


def test_the_queue_is_plotted(ui: Ui) -> None:
    ui.go("assets/repair_queue")
    ui.click("Plots")
    ui.shows("pending")
    assert ui.page.locator("canvas").count() > 3
    ui.to_the_top("Metadata")
    ui.picture("queue")


def test_a_backfill_of_partitions_does_each_of_them(ui: Ui) -> None:
    ui.go(f"{JOBS}/rebuild_slices/partitions")
    ui.page.locator("a[href*='/runs/b/']").first.click()
    # Two targeted, none in progress, two succeeded, none failed.
    ui.until(r"Failed\s.*completed\s+2\s+0\s+2\s+0\b", mark="Partitions targeted")
    assert (ui.database[TASKS].find_one({"task_id": ui.mended_by_slice}) or {})["title"] != WRONG

    ui.go(f"{JOBS}/rebuild_slices/partitions")
    ui.shows("Manually launched")
    ui.to_the_top("Status")
    ui.picture("backfill")


def test_the_lineage_leads_from_the_events_to_read_models_and_queue(ui: Ui) -> None:
    ui.go("assets/events?view=lineage&lineageScope=downstream")
    for asset in (CHATS, TASKS, "repair_queue"):
        ui.shows(asset)
    ui.page.get_by_text("Loading").first.wait_for(state="hidden")
    ui.picture("lineage")


# Runs that the command line launches, as the web UI does


def launching(started: Services, *arguments: str) -> subprocess.Popen[str]:
    # No database: a command that launches needs none.
    env = {name: value for name, value in os.environ.items() if not name.startswith("READMODEL_")}
    return subprocess.Popen(
        [sys.executable, "-m", "readmodel_pipelines.cli.main", *arguments, "--launch"],
        env=env | {"READMODEL_DAGSTER_URL": started.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_runs_are_launched_followed_and_left_on_ctrl_c(started: Services, opened: Mongo, settings: Settings) -> None:
    started.start_web_server()
    started.start_daemon()
    opened.client.drop_database(opened.name)
    with_events(opened, settings, list(chat_events(30, seed=5, mean_events=6)))
    with launching(started, "rebuild-readmodel", "--type", "all", "--all", "--json") as rebuilding:
        stdout, stderr = rebuilding.communicate(timeout=240)
    assert rebuilding.returncode == 0, stderr
    chats, tasks = json.loads(stdout)["runs"]
    assert (chats["status"], chats["metadata"]["inserted"]) == ("success", 30)
    assert f"{CHATS}: 30 aggregates compared: 30 missing; written: 30 inserted." in chats["said"]
    assert tasks["partition"] == "task"
    assert f"rebuild_read_models of chat (run {chats['run_id'][:8]}) is launched: {started.address}/runs/" in stderr
    assert "task: Rebuilding tasks_read_model" in stderr, "its log comes along"
    assert opened[CHATS].count_documents({}) == 30
    assert opened[TASKS].count_documents({}) > 0

    # One that it does itself, and has recorded there.
    telling = {**environment_of(settings), "READMODEL_DAGSTER_URL": started.address, "READMODEL_TELL_DAGSTER": "true"}
    line = [sys.executable, "-m", "readmodel_pipelines.cli.main", "verify-consistency", "--type", "chat", "--all"]
    subprocess.run([*line, "--read-only"], env={**os.environ, **telling}, check=True)
    with dg.DagsterInstance.from_config(str(started.home)) as instance:
        (seen,) = instance.fetch_observations(dg.AssetKey(CHATS), limit=1).records
        assert seen.asset_observation is not None
        assert "command line verified" in str(seen.asset_observation.description)

    opened[CHATS].update_one({}, {"$set": {"title": "wrong"}})
    verify = ("verify-consistency", "--all", "--read-only", "--type")
    with launching(started, *verify, "chat") as verifying, launching(started, *verify, "task") as left:
        assert left.stderr is not None
        launched = left.stderr.readline()
        left.send_signal(signal.SIGINT)
        _, told = left.communicate(timeout=240)
        stdout, stderr = verifying.communicate(timeout=240)
    assert verifying.returncode == 1, stderr
    assert "chats_read_model: 1 of 30 aggregates do not match their events: 1 different." in stdout
    run_id = launched.strip().rpartition("/")[2]
    assert left.returncode == 130
    assert f"(run {run_id[:8]})" in told
    assert f"{started.address}/runs/{run_id}" in told
    with dg.DagsterInstance.from_config(str(started.home)) as instance:

        def run_of(run_id: str) -> dg.DagsterRun:
            found = instance.get_run_by_id(run_id)
            assert found is not None
            return found

        tags = run_of(chats["run_id"]).tags
        assert tags["dagster/partition"] == tags["readmodel/aggregate_type"] == "chat"
        assert tags["readmodel/rebuild"].startswith("chat@")
        wait_until(lambda: run_of(run_id).is_finished)
        assert run_of(run_id).is_success
