"""Published versions: opening, following, pinning, copying and removing them. No DuckDB, no Arrow."""
