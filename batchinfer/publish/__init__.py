"""From the cache to a checked, immutable version: contents, gate, files, release."""
