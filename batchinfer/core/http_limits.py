"""The limits of the HTTP contract: the service enforces them, and the client keeps within them."""

MAX_URL = 8192  # bytes of path and query
MAX_BODY = 1 << 20  # bytes of a request's body
MAX_BODIES = 64 << 20  # bytes of bodies that one worker has and that have not come as a whole
MAX_VALUES = 64_000  # JSON values in a request's body
MAX_QUERIES = 1000  # queries in a batch of look-ups
MAX_TEXTS = 1000  # texts in a batch of matches
MAX_REPLY = 16 << 20  # bytes of the predictions in the reply to a batch of several queries
MAX_ENTRY = 64 << 20  # bytes of one prediction in a reply
MAX_MATCHES = 16 << 20  # bytes of the matches in one reply
MATCH_PLACES = 500_000  # of terms in the texts of one request, whether they are reported or not
MATCH_NAMES = 48 << 20  # bytes of what all terms in the texts of one request name; memory holds some four times as much
MATCH_SECONDS = 5.0  # that matching the texts of one request may take
MATCH_WAIT_SECONDS = 4.0  # that a request may wait for others to be matched
MATCH_WAITING = 16  # requests of one worker that may wait to be matched
LOOKUPS_WAITING = 64  # batches and large look-ups of one worker that may wait to be looked up
MAX_UNDER_WAY = 96 << 20  # bytes of large replies that one worker has made and clients have not read
STALL_SECONDS = 10.0  # without a byte of a large reply being read
READ_SECONDS = 60.0  # for a large reply as a whole
MAX_CONNECTIONS = 4096  # open at once in one worker, idle ones too; more wait in the system's queue
MAX_OF_ADDRESS = 1024  # of these, from one address, where it has more that are idle
