"""Long trials play on the same scene as the tests of the engine."""

from readmodel_pipelines_tests.integration.conftest import opened, scene  # noqa: F401
