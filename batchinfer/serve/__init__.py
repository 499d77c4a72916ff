"""The lookup service. It reads published versions; it never opens DuckDB or Parquet, and knows nothing of what makes them."""
