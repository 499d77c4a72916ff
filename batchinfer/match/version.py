"""Which matchers there are, for those who keep them and those who match no texts. Needs no library of matching."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

from batchinfer.errors import StoreError

MATCHER = "matcher.bin"
MATCHER_FORMAT = 1


class MatcherVersion(NamedTuple):
    """What tells matchers apart that may find different things in the same text.

    format: of the file.
    folding: how texts are folded.
    unicode: the version of Unicode by which they are.
    """

    format: int
    folding: int
    unicode: str


class IncompatibleMatcher(StoreError):
    """A matcher that another version of this program made, and this one cannot use."""


def matcher_version() -> MatcherVersion:
    """That of a matcher that is made now."""
    from batchinfer.match import folding

    return MatcherVersion(MATCHER_FORMAT, folding.VERSION, unicodedata.unidata_version)
