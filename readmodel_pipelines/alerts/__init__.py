"""Alerts: send a sentence to a webhook and by mail, for setups without Prometheus."""
