"""Alerts: a sentence goes to a webhook and by mail, for whoever has no Prometheus."""
