"""Reconcile: compares a read model with the events it is made from, and passes the outcomes to a sink."""
