"""Puts minutes of load on the service while all that can happen to it happens, and looks at every reply.

    python -m benchmarks.soak [--minutes 10] [--entries 20000] [--workers 2]

Four clients ask single keys and batches, and look at status and whole body. Meanwhile versions are published every two to
four seconds, one is pinned and unpinned, a worker is killed every twenty seconds, the data folder goes away for three seconds
every half minute, two clients read a byte at a time, and fifty connections say nothing. One worker is never killed: its
memory in the second minute is compared with that in the last. Limits: no wrong body, no 5xx but a 503 that says why,
and memory that grows by at most 10 %.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from batchinfer.versions import folders, pointers
from benchmarks.made import JOB, key_of
from benchmarks.servers import free_port, running, service, workers_of
from benchmarks.swapping import Publisher, entries_of

CLIENTS, SLOW, SILENT = 4, 2, 50
MOST_GROWTH = 0.1
MISSED, UNAVAILABLE = 404, 503


@dataclass
class Seen:
    """What the clients saw.

    seconds: how long each answer took.
    cut: connections that ended in the middle, as they do when a worker is killed.
    memory: (when, bytes) of the worker that is never killed.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, int]] = field(default_factory=list)
    cut: int = 0


@dataclass
class Soak:
    """One service, and those who trouble it.

    here: held while the data folder must stay where it is.
    """

    port: int
    main: int
    publisher: Publisher
    entries: int
    seen: Seen = field(default_factory=Seen)
    over: threading.Event = field(default_factory=threading.Event)
    here: threading.Lock = field(default_factory=threading.Lock)

    def workers(self) -> list[int]:
        """Process ids, the oldest first."""
        return sorted(workers_of(self.main))

    def ask(self) -> None:
        """A client."""
        while not self.over.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                while not self.over.is_set():
                    self._ask_once(connection)
            except TimeoutError:
                self.seen.wrong.append("no answer within 10 s")
            except (OSError, http.client.HTTPException):
                self.seen.cut += 1
            finally:
                connection.close()

    def _ask_once(self, connection: http.client.HTTPConnection) -> None:
        numbers = [random.randrange(int(self.entries * 1.05)) for _ in range(random.choice((1, 1, 1, 20)))]
        began, path = time.monotonic(), f"/v1/jobs/{JOB}/lookup"
        if len(numbers) == 1:
            connection.request("GET", f"{path}?id={key_of(numbers[0])}")
        else:
            connection.request("POST", path, json.dumps({"queries": [{"id": key_of(number)} for number in numbers]}))
        reply = connection.getresponse()
        content = json.loads(reply.read())
        self.seen.seconds.append(time.monotonic() - began)
        self.seen.statuses[reply.status] += 1
        if fault := self._fault(reply.status, reply.headers.get("batchinfer-version"), content, numbers):
            self.seen.wrong.append(fault)

    def _fault(self, status: int, version: str | None, content: dict[str, object], numbers: list[int]) -> str | None:
        """What is wrong with a reply."""
        if status == UNAVAILABLE and content.get("status") == UNAVAILABLE and content.get("detail"):
            return None
        if version is None or status not in (200, MISSED):
            return f"{status}: {content}"
        results = content.get("results", [content | {"found": status != MISSED}])
        assert isinstance(results, list)
        got = [result.get("prediction") if result["found"] else None for result in results]
        there = entries_of(int(version), self.entries)
        wanted = [f"prediction {number} of version {version}" if number < there else None for number in numbers]
        return None if got == wanted else f"{status}, version {version}: {got} in place of {wanted}"

    def publish(self) -> None:
        """Version after version."""
        with self.here:
            self.publisher.next()
        self.seen.done["versions published"] += 1
        self.over.wait(random.uniform(2, 4))

    def pin(self) -> None:
        """One of the last versions, for two seconds."""
        with self.here:
            pointers.pin(self.publisher.data, random.choice(folders.numbers(self.publisher.data)[-2:]))
        self.seen.done["pins"] += 1
        self.over.wait(2)
        with self.here:
            pointers.unpin(self.publisher.data)
        self.over.wait(9)

    def kill(self) -> None:
        """A worker, but never the oldest."""
        self.over.wait(20)
        younger = self.workers()[1:]
        if younger and not self.over.is_set():
            os.kill(random.choice(younger), signal.SIGKILL)
            self.seen.done["workers killed"] += 1

    def hide(self) -> None:
        """The data folder."""
        self.over.wait(27)
        root = self.publisher.data.root
        with self.here:
            root.rename(root.with_name("away"))
            self.seen.done["times that the folder was away"] += 1
            time.sleep(3)
            root.with_name("away").rename(root)

    def dawdle(self) -> None:
        """A client that reads a byte at a time."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            body = json.dumps({"queries": [{"id": key_of(number)} for number in range(500)]}).encode()
            head = f"POST /v1/jobs/{JOB}/lookup HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            while not self.over.wait(0.05) and connection.recv(1):
                pass
        self.seen.done["slow clients"] += 1

    def say_nothing(self) -> None:
        """Connections that stay open until the service closes them."""
        with contextlib.ExitStack() as stack:
            for _ in range(SILENT):
                with contextlib.suppress(OSError):
                    stack.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=10))
                    self.seen.done["silent connections"] += 1
            self.over.wait(15)

    def weigh(self) -> None:
        """The memory that the oldest worker has for itself."""
        facts = _read(Path(f"/proc/{self.workers()[0]}/smaps_rollup")).decode().splitlines()
        found = [int(line.split()[1]) << 10 for line in facts if line.startswith("Pss_Anon:")]
        self.seen.memory += [(time.monotonic(), size) for size in found]
        self.over.wait(1)

    def repeat(self, doing: Callable[[], None]) -> None:
        """Does something again and again; what it raises is wrong, too."""
        try:
            while not self.over.is_set():
                doing()
        except Exception as exc:  # noqa: BLE001 - a thread's exception would go unseen
            self.seen.wrong.append(f"{doing.__name__}: {exc!r}")


def _read(path: Path) -> bytes:
    """A file of a process; empty if that has just ended."""
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


@contextlib.contextmanager
def troubled(soak: Soak) -> Iterator[None]:
    """Everything at once."""
    others = [soak.publish, soak.pin, soak.kill, soak.hide, soak.say_nothing, soak.weigh, *[soak.dawdle] * SLOW]
    threads = [threading.Thread(target=soak.ask) for _ in range(CLIENTS)]
    threads += [threading.Thread(target=soak.repeat, args=(doing,)) for doing in others]
    for thread in threads:
        thread.start()
    yield
    soak.over.set()
    for thread in threads:
        thread.join()


def growth(memory: list[tuple[float, int]]) -> tuple[float, float]:
    """The median memory in the second minute, and in the last, in MiB."""
    began, ended = memory[0][0], memory[-1][0]
    second = [size for at, size in memory if 60 <= at - began < 120]  # noqa: PLR2004
    last = [size for at, size in memory if at >= ended - 60]
    return statistics.median(second or last) / (1 << 20), statistics.median(last) / (1 << 20)


def report(seen: Seen, minutes: float) -> bool:
    """Prints what was seen; returns whether it is within the limits."""
    times = sorted(seen.seconds)
    before, after = growth(seen.memory)
    bad = sum(count for status, count in seen.statuses.items() if status >= 500 and status != UNAVAILABLE)  # noqa: PLR2004
    print(f"{minutes:g} minutes: {len(times):,} replies, {len(seen.wrong)} wrong, {bad} 5xx but for 503.")
    print("Statuses: " + ", ".join(f"{status}: {count:,}" for status, count in sorted(seen.statuses.items())) + ".")
    print(f"Connections that ended in the middle: {seen.cut}.")
    print("Happened: " + ", ".join(f"{count:,} {name}" for name, count in sorted(seen.done.items())) + ".")
    print(
        f"p50 {times[len(times) // 2] * 1000:.1f} ms, p99 {times[len(times) * 99 // 100] * 1000:.1f} ms, longest {times[-1]:.2f} s."
    )
    print(f"Memory of a worker: {before:.1f} MiB in the second minute, {after:.1f} MiB in the last.")
    for line in seen.wrong[:5]:
        print(f"  {line[:300]}")
    return not seen.wrong and not bad and after <= before * (1 + MOST_GROWTH)


def main() -> None:
    """Prints what was seen; exits with 1 if anything was beyond its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="batchinfer-bench-") as name:
        publisher = Publisher(Path(name) / "home", given.entries)
        publisher.next()
        port = free_port()
        command = service(publisher.data.root, port, "--workers", str(given.workers))
        with running(command, "0,1", {}, f"http://127.0.0.1:{port}/readyz") as main_process:
            soak = Soak(port, main_process, publisher, given.entries)
            with troubled(soak):
                time.sleep(given.minutes * 60)
        sys.exit(not report(soak.seen, given.minutes))


if __name__ == "__main__":
    main()
