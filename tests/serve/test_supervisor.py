"""Workers that die again and again are started again and again, and the service says so."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from batchinfer.serve.pulses import LOOKS, MOST, Pulses, is_held_up
from batchinfer.serve.supervisor import FIRST_WAIT, LONGEST_WAIT, YOUNG_SECONDS, BackOff
from tests.factories import LENIENT, World, imports_job
from tests.serving import Server, eventually, free_port, serving
from tests.tiny import ROOT

# A service whose workers load, or begin, for longer than anybody waits, and that would wait for them as long.
LOADS_FOR_EVER = """
import asyncio, os, sys, time
from pathlib import Path
from batchinfer.serve.supervisor import WorkerSupervisor, end_at_once, restore
from granian.constants import Interfaces

class Begins:
    def __rsgi_init__(self, loop):
        handlers = end_at_once()
        if sys.argv[3] == "has begun":
            loop.run_until_complete(asyncio.sleep(0))
        os.write(1, b"loading %d\\n" % os.getpid())
        if sys.argv[3] == "has begun":
            time.sleep(600)
        loop.run_until_complete(asyncio.sleep(600))
        loop.call_soon(restore, handlers)

    async def __rsgi__(self, scope, protocol):
        pass

def load(_):
    if sys.argv[3] != "loads":
        return Begins()
    os.write(1, b"loading %d\\n" % os.getpid())
    time.sleep(600)

WorkerSupervisor(
    "nothing", address="127.0.0.1", port=int(sys.argv[1]), workers=2, interface=Interfaces.RSGI,
    workers_kill_timeout=600, log_enabled=False, run_folder=Path(sys.argv[2]),
).serve(target_loader=load)
"""

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207  # of Linux' <sys/ptrace.h>

# A handler that breaks in at other and other places, one at a time.
WOKEN = """
import signal
from batchinfer.serve.wake import Wake

wake, rounds, woken = Wake(), 0, 0

def handler(number, frame):
    global woken
    woken += 1
    wake.set()

signal.signal(signal.SIGALRM, handler)
while woken < 20000:
    rounds += 1
    signal.setitimer(signal.ITIMER_REAL, (rounds % 100 + 1) * 1e-6)
    wake.wait(1e-5)
    wake.clear()
while signal.setitimer(signal.ITIMER_REAL, 0)[0]:
    pass
wake.clear()
assert not wake.wait(0)
wake.set()
assert wake.wait(60)
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A published job."""
    world = imports_job(tmp_path / "job", {"id": ["a"]}, gate=LENIENT)
    world.take_in({"id": ["a"], "prediction": ["1"]})
    world.publish()
    return world


def answers(server: Server) -> bool:
    """Whether somebody answers a look-up."""
    try:
        return server.lookup("shop", id="a").status == 200
    except OSError:
        return False


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.long
def test_a_worker_that_dies_again_and_again(world: World, tmp_path: Path, workers: int) -> None:
    """The service outlives it, and tells of it in its log, its metrics and in /readyz; it ends as it should."""
    with serving(world.data.root, tmp_path / "server", workers=workers) as server:
        for _ in range(3):
            dead = eventually(lambda: len(server.children()) == workers and server.children(), server.said)
            for worker in dead:
                os.kill(worker, signal.SIGKILL)
            eventually(lambda dead=dead: not set(dead) & set(server.children()), server.said)  # type: ignore[misc]
        eventually(lambda: answers(server), server.said)
        assert server.process.poll() is None
        told = server.get("/readyz").json
        assert told["status"] == "ready"
        assert told["worker_deaths"] == 3 * workers
        assert server.metric("batchinfer_worker_deaths_total") == 3 * workers
        assert server.metric("batchinfer_workers_held_back") <= workers
        assert "Worker 1 died and is started again. It died young again, and waits" in server.log
    assert server.process.returncode == 0


@pytest.mark.long
def test_it_can_be_stopped_while_a_worker_is_held_back(world: World, tmp_path: Path) -> None:
    """SIGTERM does not wait for the worker to serve again."""
    with serving(world.data.root, tmp_path / "server") as server:
        for _ in range(4):
            [worker] = eventually(server.children, server.said)
            os.kill(worker, signal.SIGKILL)
            eventually(lambda worker=worker: server.children() not in ([], [worker]), server.said)  # type: ignore[misc]
        assert server.stop() == 0


@pytest.mark.long
def test_a_worker_that_is_frozen(world: World, tmp_path: Path) -> None:
    """It is killed and started again: who waits for its answer hears that there will be none, and others are served meanwhile."""
    with serving(world.data.root, tmp_path / "server", workers=2) as server, server.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        frozen = server.worker_of(connection)
        assert frozen is not None
        [other] = set(server.children()) - {frozen}
        os.kill(frozen, signal.SIGSTOP)
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(4096) == b""
        eventually(lambda: len(set(server.children()) - {frozen}) == 2, server.said)
        assert other in server.children()
        assert "Worker 1 got nothing done for 15 s" in server.log or "Worker 2 got nothing done for 15 s" in server.log
        eventually(lambda: answers(server) and server.get("/readyz").json["worker_deaths"] == 1, server.said)
        [run_folder] = server.folder.glob("batchinfer-serve-*")
        assert excused(run_folder) == {frozen}


def test_who_is_frozen() -> None:
    """A worker that serves and counts on no more, after so many looks; not one that has yet to begin, or is slow."""
    pulses, loop = Pulses(2), asyncio.new_event_loop()
    pulses.born(1)
    assert not any(pulses.look(1) for _ in range(10 * LOOKS)), "it loads"
    pulses.take(1)
    for _ in range(2 * MOST):
        pulses.beat(loop)
        assert not any(pulses.look(1) for _ in range(LOOKS))
    assert pulses.look(1)
    assert not any(pulses.look(0) for _ in range(10 * LOOKS))
    pulses.born(1)
    assert not any(pulses.look(1) for _ in range(10 * LOOKS))
    loop.close()


def test_an_old_worker_that_beats_on_while_a_new_one_loads() -> None:
    """As on SIGHUP: the new one has not begun, whatever the old one counts, and is looked after once it has."""
    pulses, loop = Pulses(2), asyncio.new_event_loop()
    pulses.born(1)
    pulses.take(1)
    for _ in range(3):
        pulses.born(1)
        pulses.beat(loop)  # of the one before
        assert not any(pulses.look(1) for _ in range(10 * LOOKS))
        pulses.take(1)
        pulses.beat(loop)
        assert any(pulses.look(1) for _ in range(LOOKS + 1))
        pulses.forgive(1)
        assert not any(pulses.look(1) for _ in range(LOOKS - 1))
    assert not any(pulses.look(0) for _ in range(10 * LOOKS))
    loop.close()


@pytest.mark.parametrize(
    ("does", "held"),
    [
        ("ctypes.CDLL(None).vfork(); time.sleep(600)", True),  # it waits, as for a disk, for what it began
        ("ctypes.CDLL(None).ptrace(0, 0, 0, 0); os.kill(os.getpid(), signal.SIGSTOP)", True),
        ("os.kill(os.getpid(), signal.SIGSTOP)", False),
        ("time.sleep(600)", False),
    ],
    ids=["disk", "debugger", "stopped", "asleep"],
)
def test_who_is_held(does: str, *, held: bool) -> None:
    """A worker that waits for a disk or a debugger is told from one that was stopped, or hangs."""
    script = f"import ctypes, os, signal, time; print(flush=True); {does}"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline()
            state = Path(f"/proc/{worker.pid}/stat")
            eventually(lambda: state.read_text(encoding="ascii").split()[2] != "R")
            if held:
                eventually(lambda: is_held_up(worker.pid))
            assert is_held_up(worker.pid) == held
        finally:
            os.killpg(worker.pid, signal.SIGKILL)


@pytest.mark.long
def test_a_worker_that_a_debugger_holds_is_left_alone(world: World, tmp_path: Path) -> None:
    """As one whom a disk keeps waiting: it answers afterwards."""
    with serving(world.data.root, tmp_path / "server") as server:
        [worker] = server.children()
        ptrace = ctypes.CDLL(None).ptrace
        assert ptrace(PTRACE_SEIZE, worker, 0, 0) == ptrace(PTRACE_INTERRUPT, worker, 0, 0) == 0
        eventually(lambda: is_held_up(worker))
        time.sleep(LOOKS + 5)
        assert ptrace(PTRACE_DETACH, worker, 0, 0) == 0
        eventually(lambda: answers(server), server.said)
        assert server.children() == [worker]


@pytest.mark.parametrize(
    ("send", "number"),
    [(os.kill, signal.SIGTERM), (os.killpg, signal.SIGTERM), (os.killpg, signal.SIGINT)],
    ids=["SIGTERM", "SIGTERM to all", "Ctrl-C"],
)
@pytest.mark.parametrize("how", ["loads", "begins", "has begun"])
@pytest.mark.long
def test_it_can_be_stopped_while_workers_load(
    tmp_path: Path, how: str, send: Callable[[int, int], None], number: signal.Signals
) -> None:
    """A signal that comes before a worker handles any is not lost: nobody waits for that worker."""
    command = [sys.executable, "-c", LOADS_FOR_EVER, str(free_port()), str(tmp_path), how]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as main:
        try:
            assert main.stdout is not None
            assert [main.stdout.readline().split()[0] for _ in range(2)] == ["loading"] * 2
            send(main.pid, number)
            assert main.wait(30) == 0
        finally:
            if main.poll() is None:
                os.killpg(main.pid, signal.SIGKILL)


@pytest.mark.long
def test_which_ends_of_workers_say_nothing_of_a_version(tmp_path: Path) -> None:
    """Those that somebody asked for, by SIGTERM or SIGHUP, and those of frozen ones; not one that the system may have killed."""
    command = [sys.executable, "-c", LOADS_FOR_EVER, str(free_port()), str(tmp_path), "loads"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as main:
        try:
            assert main.stdout is not None

            begun = (int(line.split()[1]) for line in main.stdout)  # those that load
            first, second = next(begun), next(begun)
            os.kill(first, signal.SIGKILL)
            os.kill(third := next(begun), signal.SIGTERM)
            fourth = next(begun)
            assert excused(tmp_path) == {third}
            os.kill(main.pid, signal.SIGHUP)
            assert len({next(begun), next(begun)}) == 2
            assert excused(tmp_path) == {second, third, fourth}
        finally:
            os.killpg(main.pid, signal.SIGKILL)


def excused(run_folder: Path) -> set[int]:
    """The processes whose ends say nothing of a version."""
    return {int(path.name) for path in (run_folder / "excused").glob("*")}


def test_a_signal_never_waits_for_the_thread_that_it_breaks_into() -> None:
    """The main process hears of one wherever it is just then; else it would wait for its own lock for ever."""
    subprocess.run([sys.executable, "-c", WOKEN], cwd=ROOT, check=True, timeout=60)


@pytest.mark.long
def test_how_long_a_worker_is_held_back() -> None:
    """Not after a first death, longer each time that it dies young, and no longer than some seconds; then from the start."""
    back_off, now, waits = BackOff(), 0.0, []
    back_off.born(0, now)
    for _ in range(8):
        waits.append(back_off.wait_of(0, now))
        back_off.born(0, now)
        now += waits[-1] + 1
    assert waits == [0, FIRST_WAIT, 0.5, 1, 2, 4, LONGEST_WAIT, LONGEST_WAIT]
    assert back_off.wait_of(0, now + YOUNG_SECONDS + LONGEST_WAIT) == 0
    assert back_off.wait_of(1, now) == 0
