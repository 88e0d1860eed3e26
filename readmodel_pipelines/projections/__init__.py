"""Projections: the folds of streams into read-model documents, and the registry of all of them. Pure."""
