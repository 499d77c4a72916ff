"""Followers of versions, for tests."""

from __future__ import annotations

import json

from batchinfer.core.home import JobData
from batchinfer.versions.follow import Follower


def following(data: JobData) -> Follower:
    """A follower that has looked once."""
    follower = Follower(data)
    follower.refresh()
    return follower


def says(follower: Follower) -> str | None:
    """What is served for the entry a."""
    snapshot = follower.followed.snapshot
    body = None if snapshot is None else snapshot.get({"id": "a"})
    return None if body is None else str(json.loads(body)["prediction"])
