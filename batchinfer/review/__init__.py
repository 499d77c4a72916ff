"""People's part: reviews written for them, and the import of their verdicts and predictions."""
