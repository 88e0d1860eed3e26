"""`make servers`: what is run on which server, one after the other, each named before and told after.

`--short` is every verb on the newest version, as three members and sharded, and a look at changes without a majority.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from readmodel_pipelines_tests.support.servers.programs import VERSIONS, NotToBeHad, Programs, programs

_TESTS = Path(__file__).parents[2]
_VERBS = str(_TESTS / "soak" / "test_servers.py")
_MAJORITY = str(_TESTS / "soak" / "test_without_majority.py")
_PYTEST = (sys.executable, "-m", "pytest", "-q")
_READMODEL = (sys.executable, "-m", "readmodel_pipelines.cli.main")
_OF_REPLICA_SETS = ("one node", "three members")


@dataclass(frozen=True, slots=True)
class Line:
    """What is run: its name, and the commands, all of which are to end well."""

    name: str
    commands: list[list[str]]
    environment: dict[str, str] = field(default_factory=dict)


def _lines(of: Programs) -> Iterator[Line]:
    yield Line(f"{of.version}: every verb on every topology", [[*_PYTEST, _VERBS, "-k", of.version]])
    named = {"READMODEL_MONGOD": str(of.mongod)}
    yield Line(f"{of.version}, three members: every command without a majority", [[*_PYTEST, _MAJORITY]], named)
    for topology in _OF_REPLICA_SETS:
        integration = [*_PYTEST, "-n", "2", "--dist", "loadfile", "--topology", topology, str(_TESTS / "integration")]
        yield Line(f"{of.version}, {topology}: the integration tests", [integration], named)
    demo = [[*_READMODEL, "demo", "--no-ui"], [*_READMODEL, "server", "stop"]]
    yield Line(f"{of.version}, one node: the demo", demo, named)


def _is_well(line: Line) -> bool:
    print(f"=== {line.name}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="readmodel-servers-") as folder:
        environment = {**os.environ, "READMODEL_DATA_DIR": folder, **line.environment}
        codes = [subprocess.run(command, env=environment).returncode for command in line.commands]
    is_well = not any(codes)
    print(f"=== {line.name}: {'ok' if is_well else 'FAILED'}, {time.monotonic() - began:.0f} s", flush=True)
    return is_well


def _short() -> int:
    newest = VERSIONS[-1]
    these = f"{newest} and (members or range) and not three_times"
    lines = [Line(f"{newest}: every verb as three members and sharded", [[*_PYTEST, "-rs", _VERBS, "-k", these]])]
    with suppress(NotToBeHad):
        named = {"READMODEL_MONGOD": str(programs(newest).mongod)}
        one = [*_PYTEST, _MAJORITY, "-k", "changes_are_not_waited_for"]
        lines.append(Line(f"{newest}: a look at changes without a majority", [one], named))
    # All of them are run, whatever becomes of the first.
    codes = [_is_well(line) for line in lines]
    return 0 if all(codes) else 1


def main(*, short: bool) -> int:
    """Run all of it; gives the exit code."""
    if short:
        return _short()
    told: list[str] = []
    for version in VERSIONS:
        try:
            told += [f"{'ok    ' if _is_well(line) else 'FAILED'} {line.name}" for line in _lines(programs(version))]
        except NotToBeHad as why:
            told.append(f"not run {version}: {why}")
    print(*told, sep="\n")
    return any(item.startswith("FAILED") for item in told)


if __name__ == "__main__":
    sys.exit(main(short="--short" in sys.argv[1:]))
