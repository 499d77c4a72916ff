"""Puts full load on the service for a minute while a version is published every second or two, and looks at every reply.

    python -m benchmarks.swapping [--seconds 60] [--entries 20000] [--workers 2]

wrk asks for random keys, one in twenty of which there is no entry for, and looks at every reply: status, the whole
body, and that body and header name one version. Beside it a checker asks single keys and batches and notes how old the
version is that answers: the time since the next one was published. Every second version lacks the upper tenth of the
keys, so that a 404 can be honest or not. Limits: no wrong reply and no broken connection,
no version older than 3 s, and at least ten replies a second to either of the two.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from batchinfer.core.home import JobData
from batchinfer.versions import retention
from batchinfer.versions.keep import Keep
from benchmarks.made import JOB, key_of, make
from benchmarks.servers import free_port, need_wrk, running, service

CHECK = """
local entries, threads, first = %d, {}, nil
seen, wrong, missed = 0, 0, 0  -- not local, so that done() can ask each thread for its own
math.randomseed(%d)
setup = function(thread) table.insert(threads, thread) end
request = function()
  return wrk.format("GET", string.format("/v1/jobs/bench/lookup?id=k%%012d", math.random(0, entries * 1.05)))
end
response = function(status, headers, body)
  seen = seen + 1
  local version = headers["batchinfer-version"]
  local good = false
  if status == 200 then
    local id, number, made = body:match('^{"job":"bench","query":{"id":"k(%%d+)"},"prediction":"prediction (%%d+) of version (%%d+)".*"}$')
    good = id ~= nil and tonumber(id) == tonumber(number) and made == version and #body == tonumber(headers["content-length"])
  elseif status == 404 then
    missed = missed + 1
    good = version ~= nil and body:find('urn:batchinfer:miss', 1, true) ~= nil
  end
  if not good then
    wrong = wrong + 1
    if first == nil then first = tostring(status) .. " " .. body; io.stderr:write(first .. "\\n") end
  end
end
done = function()
  local file = io.open("%s", "w")
  for _, thread in ipairs(threads) do
    file:write(thread:get("seen"), " ", thread:get("wrong"), " ", thread:get("missed"), "\\n")
  end
  file:close()
end
"""
LEAST = 10  # replies a second; with fewer nothing was tested
OLDEST = 3.0  # seconds


@dataclass
class Checked:
    """What the checker saw."""

    replies: int = 0
    wrong: list[str] = field(default_factory=list)
    oldest: float = 0.0


def entries_of(version: int, entries: int) -> int:
    """Every second version lacks the upper tenth."""
    return entries if version % 2 else entries - entries // 10


class Publisher:
    """Publishes version after version; knows when each became current."""

    def __init__(self, root: Path, entries: int) -> None:
        self._root, self._entries = root, entries
        self.published: dict[int, float] = {}
        self.data = JobData(root, JOB)

    def next(self) -> None:
        version = len(self.published) + 1
        make(self._root, entries_of(version, self._entries), version=version)
        self.published[version] = time.monotonic()
        retention.retain(self.data, Keep(3), lambda _: None)

    def age(self, version: int, asked: float) -> float:
        """How long the next version had been current when the question was asked."""
        following = self.published.get(version + 1)
        return 0.0 if following is None else max(0.0, asked - following)


def check(port: int, publisher: Publisher, entries: int, over: threading.Event, found: Checked) -> None:
    """Asks single keys and batches until it is over. What ends it sooner is wrong, too."""
    try:
        ask(port, publisher, entries, over, found)
    except Exception as exc:  # noqa: BLE001 - a thread's exception would go unseen
        found.wrong.append(repr(exc))


def ask(port: int, publisher: Publisher, entries: int, over: threading.Event, found: Checked) -> None:
    """The checker's loop."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    while not over.is_set():
        numbers = [random.randrange(int(entries * 1.05)) for _ in range(20)]
        asked = time.monotonic()
        if random.random() < 0.5:  # noqa: PLR2004
            connection.request("GET", f"/v1/jobs/{JOB}/lookup?id={key_of(numbers[0])}")
            reply = connection.getresponse()
            content = json.loads(reply.read())
            results = [content | {"found": True} if reply.status == http.HTTPStatus.OK else {"found": False}]
        else:
            body = json.dumps({"queries": [{"id": key_of(number)} for number in numbers]})
            connection.request("POST", f"/v1/jobs/{JOB}/lookup", body)
            reply = connection.getresponse()
            results = json.loads(reply.read())["results"]
        version = int(reply.headers["batchinfer-version"])
        expected = [
            f"prediction {number} of version {version}" if number < entries_of(version, entries) else None
            for number in numbers[: len(results)]
        ]
        got = [result.get("prediction") if result["found"] else None for result in results]
        if got != expected or reply.status not in (200, 404):
            found.wrong.append(f"{reply.status}, version {version}: {got} in place of {expected}")
        found.replies += 1
        found.oldest = max(found.oldest, publisher.age(version, asked))
    connection.close()


def main() -> None:
    """Prints what was seen; exits with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    need_wrk()
    with tempfile.TemporaryDirectory(prefix="batchinfer-bench-") as name:
        folder = Path(name)
        publisher = Publisher(folder / "home", given.entries)
        publisher.next()
        counts, lua = folder / "counts", folder / "check.lua"
        lua.write_text(CHECK % (given.entries, given.seconds, counts), encoding="utf-8")
        port = free_port()
        command = service(folder / "home", port, "--workers", str(given.workers))
        found, over = Checked(), threading.Event()
        with running(command, "0,1", {}, f"http://127.0.0.1:{port}/readyz"):
            checker = threading.Thread(target=check, args=(port, publisher, given.entries, over, found))
            checker.start()
            load = subprocess.Popen(
                ["wrk", "-t1", "-c32", f"-d{given.seconds}s", "-s", str(lua), f"http://127.0.0.1:{port}"],
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            while load.poll() is None:
                publisher.next()
                time.sleep(random.uniform(0.8, 1.8))
            over.set()
            checker.join()
            said, _ = load.communicate()
        rows = [map(int, line.split()) for line in counts.read_text(encoding="ascii").splitlines()]
        seen, wrong, missed = (sum(column) for column in zip(*rows, strict=True))
    print(said)
    print(
        f"{len(publisher.published)} versions in {given.seconds} s, {given.workers} workers, {given.entries:,} entries."
    )
    print(
        f"wrk looked at {seen:,} replies: {wrong} wrong, {missed:,} misses. Broken connections: {'Socket errors' in said}."
    )
    print(
        f"The checker looked at {found.replies:,}: {len(found.wrong)} wrong; the oldest version lay {found.oldest:.2f} s behind."
    )
    for line in found.wrong[:3]:
        print(f"  {line}")
    few = min(seen, found.replies) < LEAST * given.seconds
    if few:
        print(f"Too few replies: fewer than {LEAST} a second.")
    sys.exit(bool(few or wrong or found.wrong or found.oldest > OLDEST or "Socket errors" in said))


if __name__ == "__main__":
    main()
