"""The environment that names a test's database to the commands and processes that it starts."""

import pytest

from readmodel_pipelines.settings import Settings


def uri_of(settings: Settings) -> str:
    """With its credentials."""
    assert settings.mongodb_uri is not None
    return settings.mongodb_uri.get_secret_value()


def environment_of(settings: Settings) -> dict[str, str]:
    return {"READMODEL_MONGODB_URI": uri_of(settings), "READMODEL_DATABASE": settings.database}


def name_database(patch: pytest.MonkeyPatch, settings: Settings) -> None:
    """For this process, and for those that it starts."""
    for name, value in environment_of(settings).items():
        patch.setenv(name, value)
