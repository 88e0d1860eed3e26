"""Metrics for Prometheus: what the database says of queue, findings, verifications and rebuilds, at each scrape.

`catalogue.py` lists every metric; `samples.py` makes samples of what is known, without a database; `scrape.py` reads
MongoDB, and `exporter.py` serves. `dashboard.json` and `alerts.yaml` are for Grafana and Prometheus;
docs/monitoring.md explains them.
"""

from readmodel_pipelines.metrics.exporter import Exporter, serving, text

__all__ = ["Exporter", "serving", "text"]
