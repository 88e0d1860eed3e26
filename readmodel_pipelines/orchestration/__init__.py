"""Dagster: resources, ops, jobs and assets, thin over the projector. Nothing else imports Dagster."""
