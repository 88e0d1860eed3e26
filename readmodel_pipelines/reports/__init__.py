"""Reports of a verification: CSV, JSON and Parquet for programs, an HTML page for people."""
