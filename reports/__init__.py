"""What is SHOWN: tables, charts and the offline HTML report."""
