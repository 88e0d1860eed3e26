"""Reconcile: compare a read model with the events it is made from, and hand what is found to a sink."""
