"""Reports of a verification: CSV, JSON and Parquet for machines, one page of HTML for people."""

from readmodel_pipelines.reports.writer import SUFFIXES, ReportWriter, check_report_file

__all__ = ["SUFFIXES", "ReportWriter", "check_report_file"]
