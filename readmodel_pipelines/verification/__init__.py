"""Verifications: their coverage, records, findings and reports."""
