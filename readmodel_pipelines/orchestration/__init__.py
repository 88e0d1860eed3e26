"""Dagster: jobs, assets, checks, schedules and sensors. Nothing else but `definitions.py` imports it.

The settings as they are when the definitions load are here: what Dagster must know before a run, such as a time zone.
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
    # The definitions load all the same: every run says what is wrong with the settings.
    _defaults = {name: item.get_default(call_default_factory=True) for name, item in Settings.model_fields.items()}
    SETTINGS_AT_LOAD = Settings.model_construct(**_defaults)

OWNERS = SETTINGS_AT_LOAD.owners.split(",")
"""Of everything that Dagster lets somebody own."""
