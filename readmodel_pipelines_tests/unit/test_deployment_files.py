"""The image and the compose file of docs/deploying.md fit each other, the settings, the commands and the page."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.pages.blocks import ROOT, blocks_of
from readmodel_pipelines_tests.support.servers.images import FOLDER, Image, services
from readmodel_pipelines_tests.unit.test_documents import wrong_with

PAGE = ROOT / "readmodel_pipelines" / "docs" / "deploying.md"
IMAGE, SERVICES = Image.read(), services()
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "readmodel-pipelines"}
OPENS_MONGODB = {"prepare", "code-server", "repair-worker", "metrics"}
OPENS_POSTGRES = {"code-server", "daemon", "web-server"}


def environment_of(name: str) -> dict[str, str]:
    return {**IMAGE.environment, **OURS[name].get("environment", {})}


def words_of(name: str) -> Iterator[list[str]]:
    """The commands of a service, those of a shell one by one."""
    words = OURS[name].get("command", IMAGE.command)
    if words[:2] == ["sh", "-euc"]:
        yield from map(shlex.split, words[2].split(" && "))
    else:
        yield words


def test_the_page_shows_the_files_as_they_are() -> None:
    (dockerfile,) = blocks_of(PAGE, "dockerfile")
    assert dockerfile.code == (FOLDER / "Dockerfile").read_text()
    shown = [block.code for block in blocks_of(PAGE, "yaml")]
    assert (FOLDER / "storage.yaml").read_text().lstrip() in shown
    for file in FOLDER.iterdir():
        assert f"examples/deployment/{file.name}" in PAGE.read_text() or file.name.startswith("Dockerfile"), file.name


def test_the_location_is_where_the_code_server_is_and_has_its_usual_name() -> None:
    ((server,),) = (entry.values() for entry in yaml.safe_load((FOLDER / "workspace.yaml").read_text())["load_from"])
    ((usual,),) = (entry.values() for entry in yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"])
    words = IMAGE.command
    assert server["host"] in OURS
    assert words[words.index("-p") + 1] == str(server["port"])
    assert words[words.index("--location-name") + 1] == server["location_name"] == usual["location_name"]
    assert words[words.index("-m") + 1] == usual["module_name"]
    assert str(server["port"]) in OURS[server["host"]]["healthcheck"]["test"]


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_setting_and_command_of_a_service_exists(name: str) -> None:
    known = {f"READMODEL_{field.upper()}" for field in Settings.model_fields} | {"DAGSTER_HOME", "DAGSTER_POSTGRES_URL"}
    assert environment_of(name).keys() <= known
    for words in words_of(name):
        if words[0] == "readmodel":
            assert wrong_with(words[1:]) == ""
        else:
            assert words[0] in {"python", "dagster", "dagster-daemon", "dagster-webserver"}


def test_addresses_go_to_those_who_need_them_and_to_nobody_else() -> None:
    assert {name for name in OURS if "READMODEL_MONGODB_URI" in environment_of(name)} == OPENS_MONGODB
    assert {name for name in OURS if "DAGSTER_POSTGRES_URL" in environment_of(name)} == OPENS_POSTGRES
    assert OURS.keys() == OPENS_MONGODB | OPENS_POSTGRES
    for name in OPENS_MONGODB:
        host = re.fullmatch(r"mongodb://(\w+):27017/\?replicaSet=(\w+)", environment_of(name)["READMODEL_MONGODB_URI"])
        assert host is not None
        assert host[1] in SERVICES
        assert ["--replSet", host[2]] == SERVICES[host[1]]["command"][:2]


def test_what_is_to_be_filled_in_is_in_the_example_and_fits_the_database() -> None:
    said = dict(re.findall(r"^(\w+)=(.*)$", (FOLDER / "environment.example").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\$\{(\w+)", (FOLDER / "compose.yaml").read_text())) == said.keys()
    postgres = SERVICES["postgres"]["environment"]
    login = f"{postgres['POSTGRES_USER']}:{said['POSTGRES_PASSWORD']}"
    assert said["DAGSTER_POSTGRES_URL"] == (f"postgresql+psycopg2://{login}@postgres:5432/{postgres['POSTGRES_DB']}")


def test_nothing_listens_to_the_network_of_the_machine() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_volumes_are_declared_and_reports_outlive_their_container() -> None:
    used = [volume.split(":") for service in SERVICES.values() for volume in service.get("volumes", ())]
    declared = yaml.safe_load((FOLDER / "compose.yaml").read_text())["volumes"]
    assert {name for name, *_ in used if not name.startswith(".")} == set(declared)
    assert all((FOLDER / name).is_file() for name, *_ in used if name.startswith("."))
    assert f"reports:{IMAGE.environment['READMODEL_REPORTS_DIR']}" in OURS["code-server"]["volumes"]


def test_the_image_has_a_python_that_is_admitted_and_what_it_copies_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    least, below = (int(minor) for minor in re.findall(r"3\.(\d+)", project["requires-python"]))
    version = re.fullmatch(r"python:3\.(\d+)-slim", IMAGE.base)
    assert version is not None
    assert least <= int(version[1]) < below
    let_in = {line.removeprefix("!") for line in _lines(FOLDER / "Dockerfile.dockerignore") if line.startswith("!")}
    assert let_in == set(IMAGE.copied)
    assert all((ROOT / name).exists() for name in IMAGE.copied)
    assert {project["readme"], *project["license-files"], "pyproject.toml"} <= let_in


def test_what_the_user_of_the_image_writes_to_is_its_own() -> None:
    assert IMAGE.user == "readmodel"
    owned = re.search(rf"chown -R {IMAGE.user} (.+)$", IMAGE.runs[-1])
    assert owned is not None
    for folder in (IMAGE.environment["DAGSTER_HOME"], IMAGE.environment["READMODEL_REPORTS_DIR"]):
        assert any(Path(folder).is_relative_to(own) for own in owned[1].split()), folder


def _lines(path: Path) -> list[Any]:
    return path.read_text().splitlines()
