"""Look-ups and matching for other programs: from files, or over HTTP."""
