"""Verification as a product: what is covered, what is remembered, and what becomes of what is found."""
