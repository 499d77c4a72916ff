"""The lookup service. It reads published versions; it never opens DuckDB, and knows nothing of what makes them."""
