"""Dagster: jobs, assets, checks, schedules and sensors. Only this package and `definitions.py` import it.

It also holds the settings at load time, for values that Dagster needs before a run, such as a time zone.
"""

import warnings

import dagster as dg

from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.settings import Settings, load_settings

# Dagster's own `@sensor` passes its own beta parameter, `owners`, and warns of it in every process.
warnings.filterwarnings("ignore", message="Parameter `owners`", category=dg.BetaWarning)

try:
    SETTINGS_AT_LOAD = load_settings()
except ReadModelError:
    # The definitions load anyway, and every run reports the error in the settings.
    _defaults = {name: item.get_default(call_default_factory=True) for name, item in Settings.model_fields.items()}
    SETTINGS_AT_LOAD = Settings.model_construct(**_defaults)

OWNERS = SETTINGS_AT_LOAD.owners.split(",")
"""The owners of every asset, job, sensor and schedule."""
