"""What is KEPT and concluded: parquet files, statistics, comparisons."""
