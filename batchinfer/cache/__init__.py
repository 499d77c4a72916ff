"""The DuckDB file of a job, its cache of truth: generations, failures, imports and verdicts."""
