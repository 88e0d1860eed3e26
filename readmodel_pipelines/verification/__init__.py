"""Verification as a product: what is covered, what is remembered, and what becomes of what is found."""

from readmodel_pipelines.reconcile.about import Tier
from readmodel_pipelines.verification.coverage import Bucket, Coverage
from readmodel_pipelines.verification.folder import new_report_files
from readmodel_pipelines.verification.verify import VerificationRequest, verify, verify_fresh, verify_one

__all__ = [
    "Bucket",
    "Coverage",
    "Tier",
    "VerificationRequest",
    "new_report_files",
    "verify",
    "verify_fresh",
    "verify_one",
]
