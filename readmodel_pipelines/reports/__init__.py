"""Reports of a verification: CSV, JSON and Parquet for machines, one page of HTML for people."""
