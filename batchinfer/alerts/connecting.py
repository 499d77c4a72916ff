"""Connects to a receiver's host, of which one address may lead nowhere."""

from __future__ import annotations

import socket
from typing import Any

ADDRESSES = 2  # of a host, each of which has its share of the time


def connected(address: tuple[str, int], timeout: float, *args: Any, **kwargs: Any) -> socket.socket:
    """As `socket.create_connection`, but an address that is silent leaves time for the next one. What follows has all of it.

    timeout: in seconds, for each step that follows. Raises OSError.
    """
    made = socket.create_connection(address, timeout / ADDRESSES, *args, **kwargs)
    made.settimeout(timeout)
    return made
