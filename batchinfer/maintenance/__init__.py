"""Care of an installation: doctor, and erasure of an entry."""
