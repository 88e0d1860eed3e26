"""Metrics for Prometheus: what the database says of queue, findings, verifications and rebuilds, at each scrape.

`catalogue.py` lists every metric, `scrape.py` reads MongoDB and makes samples, `exporter.py` serves. `dashboard.json`
and `alerts.yaml` are for Grafana and Prometheus; docs/monitoring.md explains them.
"""
