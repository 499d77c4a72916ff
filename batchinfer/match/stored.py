"""The parts of matcher.bin that are read when it is opened: what lies where, and the automaton."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

from batchinfer.core.open_file import OpenFile

MAGIC = b"batchinfer match"
TRAILER = struct.Struct("<Q16s")  # the length of the JSON object before it, and MAGIC


def read_facts(file: OpenFile) -> dict[str, Any]:
    """The JSON object at the end. Raises DamagedFile, ValueError or struct.error."""
    end = file.size - TRAILER.size
    length, magic = TRAILER.unpack(file.read(end, file.size))
    if magic != MAGIC or length > end:
        raise ValueError("it does not end as a matcher does")
    facts: dict[str, Any] = json.loads(file.read(end - length, end))
    return facts


def deserialized(deserialize: Callable[[bytes], Any], automaton: bytes) -> Any:
    """The automaton, or None for one of no patterns. Raises ValueError for bytes that are none."""
    try:
        return deserialize(automaton) if automaton else None
    except BaseException as exc:
        if type(exc).__name__ != "PanicException":  # of Rust: no Exception, and of no module
            raise
        raise ValueError("the automaton cannot be read") from exc
