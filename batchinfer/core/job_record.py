"""job.json: what a data folder notes of a job, such as its file, its models, a refresh that goes on and an agreed list."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from batchinfer.core.files import DAMAGE, fault_of_path, read_small, why_damaged, why_unread
from batchinfer.errors import StoreError

RECORD = "job.json"


def read_record(path: Path) -> dict[str, Any]:
    """Its content; empty if there is none. Raises StoreError."""
    try:
        content = json.loads(read_small(path))
        _check(content)
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise StoreError(f"{path} cannot be read: {why_unread(exc)}.") from exc
    except DAMAGE as exc:
        fix = "Remove it: the next run writes it again, and takes the model's files as they are then."
        raise StoreError(f"{path} cannot be read: {why_damaged(exc)}. {fix}") from exc
    return dict(content)


def _check(content: Any) -> None:
    """Raises one of DAMAGE for a job.json that this program did not write. What only newer ones know is no fault."""
    bound, models, refresh, agreed = (content.get(name) for name in ("job_file", "models", "refresh", "list"))
    if bound is not None and (fault := fault_of_path(Path(bound))) is not None:
        raise ValueError(f"its job_file {fault}")
    for identity in (models or {}).values():
        _ = [identity[name] for name in ("revision", "digest", "adapter_digest")]
    if refresh is not None:
        _ = refresh["what"], datetime.fromisoformat(refresh["since"])
    if agreed is not None:
        _ = agreed["version"], agreed["place"]
