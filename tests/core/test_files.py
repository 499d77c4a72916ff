"""Files that are replaced as a whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from batchinfer.core.files import why_damaged, why_unread
from tests.tiny import (
    ROOT,
    process,
    until,
)

WRITE = """
import sys
from pathlib import Path
from batchinfer.core.files import write_atomically

Path(sys.argv[2]).touch()
while True:
    for letter in b"ab":
        write_atomically(Path(sys.argv[1]), bytes([letter]) * 1_000_000)
"""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff" * 300, "it is not UTF-8"),
        (b"{", "it is not JSON"),
        (b"{}", "it lacks version"),
        (b'{"version": "' + b"x" * 5000 + b'"}', "invalid literal for int() with base 10: 'xxx"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_in_words(content: bytes, said: str) -> None:
    """Neither the names of Python's errors nor the file's own bytes are in a sentence."""
    with pytest.raises((ValueError, KeyError)) as caught:
        int(json.loads(content.decode())["version"])
    why = why_damaged(caught.value)
    assert why.startswith(said)
    assert len(why) <= 200


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """While another process writes, and when it is killed, a reader sees one content or the other."""
    path = tmp_path / "file"
    path.write_bytes(b"a" * 1_000_000)
    seen: set[bytes] = set()
    with process("-c", WRITE, str(path), str(tmp_path / "go"), temporary=tmp_path, log=tmp_path / "log") as writer:
        until((tmp_path / "go").exists)

        def read() -> bool:
            seen.add(path.read_bytes())
            return len(seen) > 1

        until(read)
        assert all(read() for _ in range(100))
        writer.kill()
        writer.wait()
    seen.add(path.read_bytes())
    assert seen == {b"a" * 1_000_000, b"b" * 1_000_000}


def test_a_file_that_cannot_be_replaced_stays(tmp_path: Path) -> None:
    """When the new content cannot be written, the old one is still there and the fault is said in a sentence."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    program = (
        "import resource, sys; from pathlib import Path; from batchinfer.core.home import write_atomically; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); write_atomically(Path(sys.argv[1]), b'n' * 2000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert "StoreError" in done.stderr
    assert "cannot be written: File too large" in done.stderr
    assert path.read_bytes() == b"old"


def test_why_a_file_cannot_be_read(tmp_path: Path) -> None:
    """The system's own words, without its number and without the path, which the sentence has already."""
    with pytest.raises(OSError, match="Errno") as missing:
        (tmp_path / "gone").read_bytes()
    assert why_unread(missing.value) == "No such file or directory"
    assert why_unread(ValueError("no JSON")) == "no JSON"
