"""What is published and never changes: opening it, following it, pinning it, removing it. No DuckDB, no Arrow."""
