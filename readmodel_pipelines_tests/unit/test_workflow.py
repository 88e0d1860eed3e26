"""CI of the repository runs every version of Python that is admitted."""

import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


def test_the_workflow_runs_what_pyproject_admits() -> None:
    workflow: Any = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = [
        int(version.removeprefix("3.")) for version in workflow["jobs"]["tests"]["strategy"]["matrix"]["python"]
    ]

    assert project["requires-python"] == f">=3.{versions[0]},<3.{versions[-1] + 1}"
    assert versions == list(range(versions[0], versions[-1] + 1))
    assert workflow["jobs"]["tests"]["steps"][-1] == {"run": "bash .ci/run"}
