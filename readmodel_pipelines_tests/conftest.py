"""What the tests share: one real mongod for the session, a database of its own for each test, the corpus."""

import os
import signal
import sys
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import hypothesis
import pytest
from typer.main import get_command

from readmodel_pipelines.embedded import server as embedded
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.driver import CODEC
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.servers.authorized import AuthorizedServer, authorized_server
from readmodel_pipelines_tests.support.servers.embedded import own_server
from readmodel_pipelines_tests.support.servers.three_members import three_members
from readmodel_pipelines_tests.support.tables import those_of_a_run

# Tests start the program some hundred times: it is compiled once, whatever the shell says of bytecode.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A property that takes long on a busy machine still holds; where others look at the outcome, it is the same each time.
for _run, _examples in {"default": 50, "whole": 1_000}.items():
    hypothesis.settings.register_profile(
        f"readmodel {_run}",
        max_examples=_examples,
        deadline=None,
        derandomize="CI" in os.environ,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="every crossing of long tables, which takes minutes")
    kinds = ["one node", "three members"]
    parser.addoption("--read-order", choices=["auto", "scan"], default="auto", help="how full passes read the events")
    parser.addoption("--topology", choices=kinds, default=kinds[0], help="the server that most tests share")


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile(f"readmodel {'whole' if config.getoption('--whole') else 'default'}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that is asked for by its whole name is run whatever it is."""
    if not any("[" in argument for argument in config.args):
        items[:], left_out = those_of_a_run(items, whole=config.getoption("--whole"))
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def whole(pytestconfig: pytest.Config) -> bool:
    """Whether a test goes through all of a long table, or through a part that has every kind once."""
    return bool(pytestconfig.getoption("--whole"))


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[None]:
    """What the shell of a developer says must not change what the tests say, nor a test write to a home folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("READMODEL_") and name != "READMODEL_CORPUS"]:
            if name != "READMODEL_MONGOD":
                patch.delenv(name)
        patch.setenv("READMODEL_REPORTS_DIR", str(tmp_path_factory.mktemp("reports")))
        patch.setenv("READMODEL_SPOOL_DIR", str(tmp_path_factory.mktemp("spool")))
        patch.setenv("READMODEL_READ_ORDER", pytestconfig.getoption("--read-order"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _commands_are_built_once() -> Iterator[None]:
    """As for a person; the runner would build all of them for each that it runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", cache(get_command))
        yield


@pytest.fixture(scope="session", autouse=True)
def _a_server_is_looked_for_at_once() -> Iterator[None]:
    """The driver lets half a second pass before it looks again, also after a password that is wrong."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pymongo.common.MIN_HEARTBEAT_INTERVAL", 0.02)
        yield


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_reaches_what_tests_start() -> None:
    """A shell starts its background jobs deaf to Ctrl-C, and whatever they start would be deaf, too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def mongodb_uri(pytestconfig: pytest.Config) -> Iterator[str]:
    """A real replica set that ends with the session, however the session ends: of one node, or as was asked for."""
    if pytestconfig.getoption("--topology") == "three members":
        with three_members() as them:
            yield them.uri
    else:
        with own_server() as server:
            yield embedded.ensure_running(server)


@pytest.fixture(scope="session")
def authorized() -> Iterator[AuthorizedServer]:
    """A real server that knows its users; two seconds to start, so that those who need it share it."""
    with authorized_server() as running:
        yield running


@pytest.fixture(scope="session")
def read_once(mongodb_uri: str) -> Settings:
    """What all tests have in common; to look for a file and for every variable takes longer than many a test."""
    return Settings(mongodb_uri=mongodb_uri)


@pytest.fixture
def settings(read_once: Settings) -> Settings:
    """Settings that name a database of this test's own."""
    return read_once.model_copy(update={"database": f"test_{uuid.uuid4().hex[:12]}"})


@pytest.fixture
def legacy_settings(settings: Settings) -> Settings:
    """The same with tasks from legacy task streams."""
    return settings.model_copy(update={"task_source": "task"})


@pytest.fixture
def database(settings: Settings) -> Iterator[Mongo]:
    """The empty database of this test, dropped behind it; dates come as `DatetimeMS`."""
    with open_database(settings) as opened:
        yield opened.with_options(codec_options=CODEC)
        opened.client.drop_database(opened.name)


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of documents that the real application wrote; tests that need it skip where it is not."""
    default = Path(__file__).parents[2] / "shared" / "corpus"
    folder = Path(os.environ.get("READMODEL_CORPUS", default))
    if not folder.is_dir():
        pytest.skip("no recorded corpus here; name its folder in READMODEL_CORPUS")
    return folder
