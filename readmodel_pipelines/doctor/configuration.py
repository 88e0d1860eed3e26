"""Checks that need no MongoDB: the settings in force, and the embedded server."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import SecretStr

from readmodel_pipelines.doctor.check import Check, Health
from readmodel_pipelines.embedded.server import ServerStatus
from readmodel_pipelines.settings import Settings

_PREFIX = "READMODEL_"
# Read by the tests with recorded documents, and by the `dagster.yaml` of docs/scaling_out.md.
_OF_OTHERS = {"CORPUS", "BROKER"}


def settings_in_force(settings: Settings) -> list[dict[str, str]]:
    """Every setting: its `variable`, its `value` without secrets, and `from` (environment or default)."""
    return [
        {
            "variable": f"{_PREFIX}{name.upper()}",
            "value": _shown(settings, name),
            "from": "environment" if name in settings.model_fields_set else "default",
        }
        for name in type(settings).model_fields
    ]


def judge_settings(settings: Settings, environment: Mapping[str, str], contradicted: Sequence[str] = ()) -> Check:
    """Whether every `READMODEL_…` variable is a known setting; values of unknown ones are never shown.

    `contradicted` are those with another value in the file `.env` than in the environment.
    """
    known = {name.upper() for name in type(settings).model_fields}
    names = {name.upper().removeprefix(_PREFIX) for name in environment if name.upper().startswith(_PREFIX)}
    chosen = [item for item in settings_in_force(settings) if item["from"] == "environment"]
    details = tuple(f"{item['variable']} = {item['value']}" for item in chosen)
    found = f"{len(chosen)} from the environment, {len(known) - len(chosen)} with their defaults."
    unknown = sorted(names - known - _OF_OTHERS)
    if contradicted and not unknown:
        return Check(
            "settings",
            Health.WARNING,
            f"{found} The environment and the file .env in this folder have different values for "
            f"{', '.join(contradicted)}. This command uses the environment; `dg dev` uses the file.",
            "Set each of them in only one place.",
            details,
        )
    if not unknown:
        return Check("settings", Health.OK, found, details=details)
    told = (_unknown(name, known) for name in unknown)
    return Check(
        "settings",
        Health.WARNING,
        f"{found} No setting has this name: {'; '.join(told)}.",
        "Correct or unset the variable. docs/settings.md lists all settings.",
        details,
    )


def judge_embedded(status: ServerStatus, cannot_start: str) -> Check:
    """The state of the embedded server; `cannot_start` is the reason why it could not be started, else empty."""
    where = f"No READMODEL_MONGODB_URI is set, so the embedded server in {status.data_dir} is used"
    if status.running:
        return Check(
            "embedded server",
            Health.OK,
            f"{where}; it runs (process {status.pid}). It is for trials and tests; use your own server in production.",
        )
    return Check(
        "embedded server",
        Health.PROBLEM,
        f"{where}, and it is not running." + (f" {cannot_start}" if cannot_start else ""),
        "`readmodel server start` starts it. Or set READMODEL_MONGODB_URI to use another server.",
    )


def _shown(settings: Settings, name: str) -> str:
    value: Any = getattr(settings, name)
    if name == "mongodb_uri":
        return settings.shown_uri()
    if name == "dagster_url":
        return settings.shown_dagster_url()
    if isinstance(value, SecretStr):
        return "***"
    if isinstance(value, frozenset | tuple):
        return ", ".join(sorted(map(str, value)) if isinstance(value, frozenset) else map(str, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _unknown(name: str, known: set[str]) -> str:
    alike = difflib.get_close_matches(name, sorted(known), n=1)
    return f"{_PREFIX}{name}" + (f" (is {_PREFIX}{alike[0]} meant?)" if alike else "")
