"""Ask a large model every question once, ahead of time; check the answers; serve them from a file."""

__version__ = "0.1.0"
