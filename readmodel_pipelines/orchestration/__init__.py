"""Dagster: resources, ops, jobs, assets and sensors, thin over projector and worker. Nothing else imports Dagster."""

import warnings

import dagster as dg

# Dagster's own `@sensor` passes its own beta parameter, `owners`, and warns of it in every process.
warnings.filterwarnings("ignore", message="Parameter `owners`", category=dg.BetaWarning)
