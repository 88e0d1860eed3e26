"""MongoDB: where events are read and read models written; implements what `readmodel_pipelines.reconcile` asks for."""
