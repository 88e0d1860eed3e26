"""Metrics for Prometheus: what the database says of queue, findings, verifications and rebuilds, at each scrape.

`catalogue.py` lists every metric; `facts.py` is what is known, `families.py` makes metrics of it, both without a
database; `gather.py` reads MongoDB and `exporter.py` serves. `dashboard.json` and `alerts.yaml` are for Grafana and
Prometheus; docs/monitoring.md explains them.
"""

from readmodel_pipelines.metrics.exporter import Exporter, serving, text

__all__ = ["Exporter", "serving", "text"]
