"""Which students there are, and what learning one takes, for those who keep them. Needs no library of students."""

from __future__ import annotations

from batchinfer.errors import MissingExtra, StoreError


class NewerStudent(StoreError):
    """A student that a newer program made."""


def need_student_libraries() -> None:
    """Raises MissingExtra where no student of any kind could be learned: before hours of work, not after them."""
    try:
        import regex  # noqa: F401
        import scipy  # noqa: F401
        import threadpoolctl  # noqa: F401
    except ImportError as exc:
        raise MissingExtra("SciPy, threadpoolctl or regex, which a student is learned with,", "train") from exc
