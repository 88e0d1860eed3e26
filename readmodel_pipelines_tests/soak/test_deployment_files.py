"""The image and the services of docs/deploying.md, as far as they go without Docker.

The steps of the image are taken in a folder, with an environment of Python of their own; every service's command is
run from there, on a real MongoDB and a real PostgreSQL, with what the compose file gives it and nothing else.
"""

import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pymongo import MongoClient

from readmodel_pipelines.embedded import mongod_program
from readmodel_pipelines_tests.support.pages.blocks import ROOT
from readmodel_pipelines_tests.support.pages.terminal import free_port
from readmodel_pipelines_tests.support.servers import postgres
from readmodel_pipelines_tests.support.servers.images import Image, in_root, services
from readmodel_pipelines_tests.support.verbs.dagster_runs import BOTH, SAMPLE
from readmodel_pipelines_tests.support.verbs.repairing import task
from readmodel_pipelines_tests.support.waiting import wait_until

IMAGE, SERVICES = Image.read(), services()
PROCESSES = ("code-server", "daemon", "web-server", "repair-worker", "metrics")
PORTS = ("27017", "4266", "3000", "9464")

pytestmark = pytest.mark.skipif(bool(postgres.why_not()), reason=postgres.why_not())


class Container:
    """The image's folder, its programs, and the environment of a machine that has nothing else."""

    def __init__(self, root: Path) -> None:
        self.root, self.programs = root, root / "python" / "bin"
        subprocess.run([sys.executable, "-m", "venv", root / "python"], check=True)
        IMAGE.build(root, self.programs)
        self.environment = {
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(root),
            "LANG": "C.UTF-8",
            **{name: in_root(value, root) for name, value in IMAGE.environment.items()},
        }

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=self.root / "app", env={**self.environment, **environment}, capture_output=True, text=True
        )


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    with tempfile.TemporaryDirectory(prefix="readmodel-image-") as folder:
        yield Container(Path(folder))


def test_the_user_and_what_is_its_own_are_made(container: Container) -> None:
    assert IMAGE.user in (container.root / "useradd").read_text()
    owned = (container.root / "chown").read_text().split()
    for folder in (container.environment["DAGSTER_HOME"], container.environment["READMODEL_REPORTS_DIR"]):
        assert Path(folder).is_dir()
        assert any(Path(folder).is_relative_to(own) for own in owned if own.startswith("/"))


def test_every_file_of_the_project_is_in_what_is_installed(container: Container) -> None:
    (installed,) = container.root.glob("python/lib/python*/site-packages/readmodel_pipelines")
    source = container.root / "build" / "readmodel_pipelines"
    wanted = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    assert len(wanted) > 200
    assert [path for path in sorted(wanted) if not (installed / path).is_file()] == []
    for name in ("dagster.yaml", "workspace.yaml"):
        assert (installed / name).read_text() == (ROOT / name).read_text()


@pytest.mark.parametrize("name", sorted({"prepare", *PROCESSES}))
def test_every_program_of_a_service_starts(container: Container, name: str) -> None:
    words = SERVICES[name].get("command", IMAGE.command)
    if words[0] == "sh":
        words = ["readmodel", "ensure-indexes"]
    program = itertools.takewhile(lambda word: not word.startswith("-"), words)
    done = container.run(*program, "--help")
    assert (done.returncode, "Usage" in done.stdout) == (0, True), done.stderr


def test_a_demo_of_what_is_installed_ends_well_where_no_checkout_is(container: Container) -> None:
    with tempfile.TemporaryDirectory(prefix="readmodel-demo-") as folder:
        own = {"READMODEL_DATA_DIR": folder, "READMODEL_MONGOD": str(_mongod()), "READMODEL_GRACE_SECONDS": "0.2"}
        try:
            done = container.run("readmodel", "demo", "--no-ui", **own)
        finally:
            container.run("readmodel", "server", "stop", **own)
    assert (done.returncode, "All is well" in done.stdout) == (0, True), done.stdout + done.stderr


def _mongod() -> Path:
    configured = os.environ.get("READMODEL_MONGOD")
    return mongod_program.find_mongod(Path(configured) if configured else None)


class Network:
    """Services by their names in the compose file: here each listens on the loopback, at a port that is free."""

    def __init__(self, container: Container, socket_folder: str) -> None:
        self.container = container
        self.ports = {port: str(free_port()) for port in PORTS}
        self._address_of_postgres = (
            f"postgresql+psycopg2://{postgres.USER}:{quote(postgres.PASSWORD, safe='')}@/{postgres.DATABASE}"
            f"?host={socket_folder}"
        )
        workspace = container.root / "app/home/workspace.yaml"
        workspace.write_text(self.here(workspace.read_text()))

    def here(self, said: str) -> str:
        said = re.sub(
            r"\b(mongodb(?!://)|code-server|0\.0\.0\.0)(?=\b)", "127.0.0.1", in_root(said, self.container.root)
        )
        for port, ours in self.ports.items():
            said = re.sub(rf"\b{port}\b", ours, said)
        return said

    def environment_of(self, name: str) -> dict[str, str]:
        given = {key: self.here(value) for key, value in SERVICES[name].get("environment", {}).items()}
        if "DAGSTER_POSTGRES_URL" in given:
            given["DAGSTER_POSTGRES_URL"] = self._address_of_postgres
        return given

    def run(self, name: str, words: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        """The service's command to its end, or another one with its environment."""
        words = words or SERVICES[name]["command"]
        return self.container.run(*map(self.here, words), **self.environment_of(name))

    def start(self, name: str) -> subprocess.Popen[bytes]:
        with (self.container.root / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [*map(self.here, SERVICES[name].get("command", IMAGE.command))],
                cwd=self.container.root / "app",
                env={**self.container.environment, **self.environment_of(name)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@contextmanager
def started(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """It ends as a supervisor ends it, or, when the test fails, at once."""
    try:
        yield
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def mongod(network: Network, folder: Path) -> subprocess.Popen[bytes]:
    """The service `mongodb`, on the loopback alone."""
    words = [word for word in SERVICES["mongodb"]["command"] if word != "--bind_ip_all"]
    own = ["--dbpath", str(folder), "--port", network.ports["27017"], "--bind_ip", "127.0.0.1", "--nounixsocket"]
    return subprocess.Popen(
        [str(_mongod()), *words, *own, "--oplogSize", "64"], stdout=subprocess.DEVNULL, start_new_session=True
    )


def test_the_services_repair_and_rebuild_and_are_measured(container: Container, tmp_path: Path) -> None:
    with postgres.running() as socket_folder, ExitStack() as running:
        network = Network(container, socket_folder)
        (tmp_path / "db").mkdir()
        running.enter_context(started(mongod(network, tmp_path / "db")))
        for volume in SERVICES["prepare"]["volumes"]:
            source, target, _ = volume.split(":")
            text = (ROOT / "readmodel_pipelines/docs/examples/deployment" / source).read_text()
            Path(in_root(target, container.root)).write_text(text)
        for _ in ("an empty MongoDB", "one that is prepared"):
            done = network.run("prepare")
            assert done.returncode == 0, done.stderr

        uri = network.environment_of("metrics")["READMODEL_MONGODB_URI"]
        database = running.enter_context(MongoClient[Any](uri))["flowra"]
        database.events.insert_many([{**event} for event in SAMPLE])
        for name in PROCESSES:
            running.enter_context(started(network.start(name)))

        health = SERVICES["code-server"]["healthcheck"]["test"][1:]
        wait_until(lambda: network.run("code-server", health).returncode == 0, every=1)
        database.repair_queue.insert_one(task(SAMPLE[0]["aggregate_id"]))
        wait_until(lambda: database.repair_queue.count_documents({"status": "completed"}) == 1)

        web = {"READMODEL_DAGSTER_URL": f"http://127.0.0.1:{network.ports['3000']}"}
        wait_until(lambda: "HTTP" in _answer(web["READMODEL_DAGSTER_URL"]))
        launched = {**web, **network.environment_of("metrics")}
        for verb in ("rebuild-readmodel", "verify-consistency"):
            done = container.run("readmodel", verb, "--type", "all", "--all", "--launch", **launched)
            assert done.returncode == 0, done.stdout + done.stderr
        for _, read_model in BOTH:
            assert database[read_model].count_documents({}) > 0
        assert list(Path(container.environment["READMODEL_REPORTS_DIR"]).iterdir())
        assert "readmodel_up 1" in _answer(f"http://127.0.0.1:{network.ports['9464']}/metrics")
        assert network.run("repair-worker", ["readmodel", "doctor"]).returncode == 0

    written = "".join(path.read_text(errors="replace") for path in container.root.glob("*.log"))
    assert quote(postgres.PASSWORD, safe="") not in written


def _answer(address: str) -> str:
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 - our own
            return f"HTTP {answer.read().decode()}"
    except (urllib.error.URLError, ConnectionError):
        return ""
