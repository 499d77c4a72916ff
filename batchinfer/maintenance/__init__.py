"""Care of an installation: doctor, repair of a cache, and erasure of an entry."""
