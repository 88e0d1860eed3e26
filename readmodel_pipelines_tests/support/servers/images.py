"""The image and the services of docs/examples/deployment, read as Docker reads them, as far as they say."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from readmodel_pipelines_tests.support.pages.blocks import ROOT

FOLDER = ROOT / "readmodel_pipelines" / "docs" / "examples" / "deployment"

# A container has a root of its own: its folders lie in one of ours, and of users there is only ours.
_SHIMS = {"useradd": 'echo "$@" >> "$ROOT_OF_IMAGE/useradd"', "chown": 'echo "$@" >> "$ROOT_OF_IMAGE/chown"'}


@dataclass(frozen=True)
class Image:
    """What a Dockerfile says, of each kind of instruction that ours has."""

    base: str
    user: str
    environment: Mapping[str, str]
    command: list[str]
    steps: list[tuple[str, str]]

    @property
    def copied(self) -> list[str]:
        """The files and folders of the checkout that are in it."""
        return [name for verb, said in self.steps if verb == "COPY" for name in said.split()[:-1]]

    @property
    def runs(self) -> list[str]:
        """The commands that make it."""
        return [said for verb, said in self.steps if verb == "RUN"]

    @classmethod
    def read(cls) -> "Image":
        """That of the project."""
        text = re.sub(r"^#.*\n", "", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", "")
        steps = [(verb, said.strip()) for verb, _, said in (line.partition(" ") for line in text.splitlines()) if verb]
        assert {verb for verb, _ in steps} <= {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "VOLUME", "CMD"}
        one = dict(steps)
        environment = dict(item.split("=", 1) for item in shlex.split(one["ENV"]))
        return cls(one["FROM"], one["USER"], environment, json.loads(one["CMD"]), steps)

    def build(self, root: Path, programs: Path) -> None:
        """Take its steps in a folder that stands for its root; `programs` has its Python and is looked in first."""
        shims = root / "shims"
        shims.mkdir()
        for name, body in _SHIMS.items():
            (shims / name).write_text(f"#!/bin/sh\n{body}\n")
            (shims / name).chmod(0o755)
        path = os.pathsep.join((str(shims), str(programs), os.environ["PATH"]))
        environment = {**os.environ, "PATH": path, "ROOT_OF_IMAGE": str(root)}
        here = root
        for verb, said in self.steps:
            match verb:
                case "WORKDIR":
                    here = root / said.lstrip("/")
                    here.mkdir(parents=True, exist_ok=True)
                case "COPY":
                    *sources, target = said.split()
                    for source in sources:
                        _copy(ROOT / source, here / target / (source if (ROOT / source).is_file() else ""))
                case "RUN":
                    subprocess.run(
                        ["sh", "-euc", in_root(said, root)], cwd=here, env=environment, check=True, timeout=3_000
                    )


def in_root(said: str, root: Path) -> str:
    """A command, with its folders in ours."""
    return re.sub(r"(?<![\w.])/(app|reports)\b", rf"{root}/\1", said)


def services() -> dict[str, dict[str, Any]]:
    """Those of the compose file, by name."""
    found: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    return found


def _copy(source: Path, target: Path) -> None:
    if source.is_file():
        shutil.copy(source, target)
    else:
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
