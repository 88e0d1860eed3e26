"""The file `.env`: the command line has its settings as `dg dev` has, and says when the environment disagrees."""

import os
import subprocess
import sys
from pathlib import Path

from readmodel_pipelines.env_file import contradicted, settings_of, take_in

TEXT = """\
# for everybody
export READMODEL_DATABASE="shop"
READMODEL_TIMEZONE='Europe/Vienna'
READMODEL_MONGOD
DAGSTER_HOME=/srv
"""


def test_the_file_has_settings_and_nothing_else_of_it_is_taken(tmp_path: Path) -> None:
    assert settings_of(tmp_path) == {}
    (tmp_path / ".env").write_text(TEXT)
    assert settings_of(tmp_path) == {"READMODEL_DATABASE": "shop", "READMODEL_TIMEZONE": "Europe/Vienna"}


def test_the_environment_goes_before_the_file_and_that_they_differ_is_known(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(TEXT)
    environment = {"READMODEL_DATABASE": "mine"}
    take_in(environment, tmp_path)
    assert environment == {"READMODEL_DATABASE": "mine", "READMODEL_TIMEZONE": "Europe/Vienna"}
    assert contradicted(environment, tmp_path) == ["READMODEL_DATABASE"]
    assert contradicted({"READMODEL_DATABASE": "shop"}, tmp_path) == []


def test_a_command_goes_by_the_file_of_the_folder_that_it_is_started_in(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("READMODEL_TASK_SOURCE=neither\n")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("READMODEL_")}
    ended = subprocess.run(
        [sys.executable, "-m", "readmodel_pipelines.cli.main", "repair-queue", "stats"],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "READMODEL_TASK_SOURCE" in ended.stderr
