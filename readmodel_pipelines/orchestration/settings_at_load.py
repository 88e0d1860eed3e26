"""The settings as they are when the definitions load: what Dagster must know before a run, such as a time zone."""

from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.settings import Settings, load_settings


def _settings() -> Settings:
    try:
        return load_settings()
    except ReadModelError:
        # The definitions load all the same: every run says what is wrong with the settings.
        defaults = {name: item.get_default(call_default_factory=True) for name, item in Settings.model_fields.items()}
        return Settings.model_construct(**defaults)


SETTINGS_AT_LOAD = _settings()

OWNERS = SETTINGS_AT_LOAD.owners.split(",")
"""Of everything that Dagster lets somebody own."""
