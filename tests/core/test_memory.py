"""The memory of tables follows the machine, and can be set."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchinfer.core import memory
from batchinfer.core.memory import LEAST, MOST, VARIABLE, batch_bytes, table_memory
from batchinfer.errors import UsageError
from tests.factories import model_job
from tests.tiny import numbered


@pytest.mark.parametrize(
    ("said", "size"), [("512MB", 512 << 20), ("2 GiB", 2 << 30), ("1.5g", 3 << 29), ("67108864", 64 << 20)]
)
def test_a_person_may_say_it(monkeypatch: pytest.MonkeyPatch, said: str, size: int) -> None:
    """BATCHINFER_MEMORY has a number and a unit."""
    monkeypatch.setenv(VARIABLE, said)
    assert table_memory() == size
    assert 1 << 20 <= batch_bytes() <= size


@pytest.mark.parametrize("said", ["much", "-1GB", "1 byte", "3MB", "GB"])
def test_what_is_no_amount_is_refused(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """One sentence names the variable and what it is."""
    monkeypatch.setenv(VARIABLE, said)
    with pytest.raises(UsageError, match=f"BATCHINFER_MEMORY is .*{said}"):
        table_memory()


def test_it_is_looked_up_before_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read for it: as often for many answers as for few, in a run and where texts are read again."""
    counts = [0, 0]
    for number, rows in enumerate((5, 50)):
        world = model_job(tmp_path / str(rows), numbered(rows) | {"id": list(range(rows))})

        def free(number: int = number) -> int:
            counts[number] += 1
            return 1 << 30

        with monkeypatch.context() as patched:
            patched.setattr(memory, "_of_machine", free)
            world.answer(lambda row: row["text"])
            world.changed(output={"steps": ["casefold"]}).publish()
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize(("free", "size"), [(1 << 28, LEAST), (4 << 30, 512 << 20), (64 << 30, MOST)])
def test_without_a_word_it_is_a_part_of_what_is_free(monkeypatch: pytest.MonkeyPatch, free: int, size: int) -> None:
    """An eighth of the machine's free memory, within bounds."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(memory, "_of_machine", lambda: free)
    monkeypatch.setattr(memory, "_of_container", lambda: None)
    assert table_memory() == size


def test_a_container_with_less_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least limit of the control groups from the process's own up to the top."""
    inner = tmp_path / "pods" / "one"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (tmp_path / "pods" / "memory.max").write_text("3221225472\n")
    monkeypatch.setattr(
        memory, "_content", lambda path, own=memory._content: own(path) if "proc" not in str(path) else "0::/pods/one\n"
    )
    assert memory._of_container(tmp_path) == 3 << 30
    monkeypatch.setattr(memory, "_content", lambda _: "")
    assert memory._of_container(tmp_path / "none") is None
