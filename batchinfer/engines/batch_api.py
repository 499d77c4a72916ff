"""A server's batch API: files, the batches that are made of them, and how those stand.

What is asked of it is paid, so that it lost something is believed only where it says so in its own words.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, BinaryIO
from urllib.parse import quote

from batchinfer.engines.server_api import Away, Broken, Missing, Refused, ServerApi

PAGES = 10  # of the server's list of batches that are looked through


class BatchApi:
    """Each method raises a ServerFault, or what comes of a reply without what it must have."""

    def __init__(self, api: ServerApi, pause: Callable[[], object]) -> None:
        """pause: waits a while."""
        self._api, self._pause = api, pause

    def upload(self, content: bytes) -> str:
        """The name of a new file."""
        return str(self._api.upload("/files", "part.jsonl", content, {"purpose": "batch"})["id"])

    def make(self, file: str, endpoint: str) -> str:
        """The name of a file's batch, which is made unless the server has it already: it answered, and nobody heard."""
        if (batch := self._listed(file)) is None:
            content = {"input_file_id": file, "endpoint": endpoint, "completion_window": "24h"}
            try:
                batch = self._api.post("/batches", content)
            except Missing as exc:  # batches are there: it is the file that it does not know
                raise Refused(exc.said) from exc
            except (Away, Broken):
                self._pause()  # a server behind a gateway that gave up may make it in a moment: then it is in the list
                raise
        return str(batch["id"])

    def look(self, batch: str) -> dict[str, Any] | None:
        """A batch as it is now; None if the server has no such."""
        try:
            return dict(self._api.get(f"/batches/{quote(batch, safe='')}"))
        except Missing:
            self._api.get("/models")  # which is there: only the batch is not
            return None

    def fetch(self, name: str, file: BinaryIO) -> bool | None:
        """Writes a file of answers, whole, to a temporary one; None if the server has no such."""
        file.seek(0)
        file.truncate()
        try:
            self._api.download(f"/files/{quote(name, safe='')}/content", file)
        except Missing:
            self._api.get("/models")
            return None
        file.seek(0)
        last = b""
        for line in file:
            last = line.strip() or last
        try:
            json.loads(last or b"{}")
        except (ValueError, RecursionError) as exc:
            raise Broken("sent half a file of answers, or something else than answers") from exc
        file.seek(0)
        return True

    def _listed(self, file: str) -> dict[str, Any] | None:
        """The batch of a file, if it is among the newest in the server's list."""
        after = ""
        for _ in range(PAGES):
            page = self._api.get(f"/batches?limit=100{after}")
            for batch in page["data"]:
                if batch.get("input_file_id") == file:
                    return dict(batch)
            if not page.get("has_more") or not page["data"]:
                return None
            after = f"&after={quote(str(page['data'][-1]['id']))}"
        return None
