"""The readme is held to the code: its table of settings, its commands, its exit codes."""

from __future__ import annotations

import re
from pathlib import Path

from readmodel_pipelines.settings import Settings

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_table_of_settings_has_every_setting_and_no_other() -> None:
    documented = re.findall(r"^\| `(READMODEL_\w+)` \|", README, flags=re.MULTILINE)
    assert sorted(documented) == sorted(f"READMODEL_{name.upper()}" for name in Settings.model_fields)


def test_the_defaults_in_the_table_are_those_of_the_settings() -> None:
    documented = dict(re.findall(r"^\| `READMODEL_(\w+)` \| `([^`]+)` \|", README, flags=re.MULTILINE))
    defaults = {name.upper(): field.default for name, field in Settings.model_fields.items()}
    assert documented
    assert documented == {name: str(defaults[name]) for name in documented}
