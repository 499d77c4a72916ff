"""Queries that clients asked for and did not find, on their way back into the list."""
