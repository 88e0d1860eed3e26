"""Metrics for Prometheus: queue, findings, verifications and rebuilds, read from the database at each scrape.

`catalogue.py` lists every metric, `scrape.py` reads MongoDB and makes samples, `exporter.py` serves them.
`dashboard.json` and `alerts.yaml` are for Grafana and Prometheus; docs/monitoring.md explains them.
"""
