"""The limits of the HTTP contract: the service enforces them, and the client keeps within them."""

MAX_URL = 8192  # bytes of path and query
MAX_BODY = 1 << 20  # bytes of a request's body
MAX_QUERIES = 1000  # queries in a batch of look-ups
MAX_TEXTS = 1000  # texts in a batch of matches
