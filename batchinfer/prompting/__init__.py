"""Row to prompt, and generation to prediction. Pure: no files, no database, no engine."""
