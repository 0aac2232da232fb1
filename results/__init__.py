"""What is KEPT and concluded: parquet parts, statistics, comparisons."""
