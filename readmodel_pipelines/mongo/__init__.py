"""MongoDB: reads events, reads and writes read models; implements the interfaces of `readmodel_pipelines.reconcile`."""
