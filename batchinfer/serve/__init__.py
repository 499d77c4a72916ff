"""The lookup service. It reads published versions, and never opens DuckDB."""
