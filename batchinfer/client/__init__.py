"""How other programs look predictions up: from files, or over HTTP."""
