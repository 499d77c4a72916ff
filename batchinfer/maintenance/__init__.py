"""Looking after an installation: doctor, erasure."""
