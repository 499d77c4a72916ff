"""The job file: its sections as frozen models, read and checked as a whole."""
