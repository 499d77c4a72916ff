"""The list against the cache: what is to be asked, in which order, at what cost."""
