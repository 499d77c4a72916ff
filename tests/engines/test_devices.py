"""Devices: which there are, where replicas go, and who may use them when."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from pathlib import Path

import pytest

from batchinfer.engines.devices import Gpu, Placement, find_gpus, hold, hold_free, place, place_here
from batchinfer.errors import Stopped, StoreError, UsageError
from batchinfer.pipeline.stop import Stop
from tests.tiny import BECOME_NOBODY, folder_for_all, process, until

GPUS = [Gpu(str(number), f"GPU-{letter * 8}", "NVIDIA H100", 81559) for number, letter in enumerate("abcd")]
LISTING = "\n".join(f"{gpu.index}, {gpu.uuid}, {gpu.name}, {gpu.memory_mib}" for gpu in GPUS)


def indexes(placements: list[Placement]) -> list[list[str]]:
    """Which GPUs each replica has."""
    return [[gpu.index for gpu in placement.gpus] for placement in placements]


def test_one_replica_takes_all_cores() -> None:
    """Without a GPU, auto is one replica on every core."""
    [only] = place("auto", 1, [], [0, 1, 2])
    assert only.cores == (0, 1, 2)
    assert only.is_cpu
    assert only.locks == ("cpu",)


def test_replicas_share_the_cores() -> None:
    """Without a GPU, replicas have equal shares of the cores, and no core twice."""
    assert [placement.cores for placement in place(2, 1, [], [0, 1, 4, 5, 6])] == [(0, 1), (4, 5)]


def test_more_replicas_than_cores_are_refused() -> None:
    """A replica needs a core of its own."""
    with pytest.raises(UsageError, match=r"^3 replicas are asked for, but there are only 2 CPU cores: use fewer\.$"):
        place(3, 1, [], [0, 1])


def test_tensor_parallel_needs_gpus() -> None:
    """Sharing a model between GPUs is refused where there are none."""
    with pytest.raises(
        UsageError, match=r"^2 GPUs are asked for, but this machine has none: remove the setting\.$"
    ) as refused:
        place("auto", 2, [], [0, 1])
    assert refused.value.field == ("engine", "tensor_parallel")


def test_auto_is_a_replica_for_each_gpu() -> None:
    """With GPUs, auto is one replica on each."""
    assert indexes(place("auto", 1, GPUS, [0])) == [["0"], ["1"], ["2"], ["3"]]


def test_auto_is_a_replica_for_each_group_of_gpus() -> None:
    """With tensor parallel, auto is one replica on each whole group; GPUs left over stay idle."""
    assert indexes(place("auto", 2, GPUS, [0])) == [["0", "1"], ["2", "3"]]
    assert indexes(place("auto", 3, GPUS, [0])) == [["0", "1", "2"]]


def test_a_number_of_replicas_takes_the_first_gpus() -> None:
    """A number of replicas takes as many groups, from the front."""
    assert indexes(place(1, 2, GPUS, [0])) == [["0", "1"]]
    assert indexes(place(3, 1, GPUS, [0])) == [["0"], ["1"], ["2"]]


def test_a_group_of_gpus_locks_each() -> None:
    """A replica on two GPUs needs the locks of both."""
    [only] = place(1, 2, GPUS, [0])
    assert only.locks == ("GPU-aaaaaaaa", "GPU-bbbbbbbb")
    assert only.description == "NVIDIA H100 + NVIDIA H100"


@pytest.mark.parametrize(("replicas", "tensor_parallel", "needed"), [(5, 1, 5), (3, 2, 6), ("auto", 8, 8)])
def test_more_gpus_than_there_are_is_refused(replicas: int | str, tensor_parallel: int, needed: int) -> None:
    """A job that needs more GPUs than can be seen is told how many it asks for and how many there are."""
    with pytest.raises(UsageError, match=rf"{needed} in all, but 4 can be seen"):
        place(replicas, tensor_parallel, GPUS, [0])


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH, without a command in it yet; no GPU is hidden."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder


def install_smi(folder: Path, listing: str, code: int = 0) -> None:
    """An nvidia-smi that prints a listing if it is asked for what the program needs, in that order."""
    script = folder / "nvidia-smi"
    asked = "--query-gpu=index,uuid,name,memory.total --format=csv,noheader,nounits"
    script.write_text(f'#!/bin/sh\n[ "$*" = "{asked}" ] || exit 9\necho "{listing}"\nexit {code}\n', encoding="utf-8")
    script.chmod(0o755)


def test_no_driver_means_no_gpus(commands: Path) -> None:
    """Where nvidia-smi is not installed there is no GPU."""
    assert find_gpus() == []


def test_a_broken_driver_means_no_gpus(commands: Path) -> None:
    """Where nvidia-smi fails there is no GPU to be used."""
    install_smi(commands, "NVIDIA-SMI has failed", 9)
    assert find_gpus() == []


def test_gpus_are_read_from_the_driver(commands: Path) -> None:
    """Every GPU that nvidia-smi lists is found, with its name and memory."""
    install_smi(commands, LISTING)
    assert find_gpus() == GPUS


def test_a_gpu_of_unknown_memory_is_a_gpu(commands: Path) -> None:
    """A GPU whose memory the driver does not tell is found all the same."""
    install_smi(commands, "0, GPU-a, NVIDIA GB10, [N/A]")
    assert find_gpus() == [Gpu("0", "GPU-a", "NVIDIA GB10", 0)]


@pytest.mark.parametrize(
    ("allowed", "found"),
    [
        ("2", ["2"]),
        ("2,0", ["2", "0"]),
        (" 1 , 3 ", ["1", "3"]),
        ("GPU-cccccccc", ["2"]),
        ("GPU-cccccccc,GPU-aaaaaaaa", ["2", "0"]),
        ("GPU-cc", ["2"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_hidden_gpus_are_not_used(
    commands: Path, monkeypatch: pytest.MonkeyPatch, allowed: str, found: list[str]
) -> None:
    """CUDA_VISIBLE_DEVICES says which GPUs may be used and in which order, by number or by (the start of) their id."""
    install_smi(commands, LISTING)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
    assert [gpu.index for gpu in find_gpus()] == found


def test_placing_on_this_machine(commands: Path) -> None:
    """place_here uses the GPUs that are found, and without them the cores that this process may use."""
    assert place_here(1, 1) == [Placement(cores=tuple(sorted(os.sched_getaffinity(0))))]
    install_smi(commands, LISTING)
    assert indexes(place_here("auto", 2)) == [["0", "1"], ["2", "3"]]


HOLD = """
import json, sys, time
from pathlib import Path
from batchinfer.engines.devices import Gpu, Placement, hold

said, held, names = sys.argv[1:]
placements = [Placement(gpus=(Gpu("0", name, "H", 1),)) if name != "cpu" else Placement() for name in json.loads(names)]
with hold(placements, "batchinfer job other", Path(said).write_text):
    Path(held).touch()
    time.sleep(3600)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, in which the locks of devices lie."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def holder_arguments(folder: Path, *names: str) -> list[str]:
    """What starts a process that holds devices; it writes what it says to `said`, and makes `held` once it has them."""
    return ["-c", HOLD, str(folder / "said"), str(folder / "held"), json.dumps(names)]


def test_a_device_is_waited_for(tmp_path: Path, temporary: Path) -> None:
    """A second process waits for the device, says for whom, and gets it when the first lets go."""
    said, held = tmp_path / "said", tmp_path / "held"
    with contextlib.ExitStack() as stack:
        with hold([Placement()], "batchinfer job first", print):
            second = process(*holder_arguments(tmp_path, "cpu"), temporary=temporary, log=tmp_path / "log")
            stack.enter_context(second)
            until(lambda: said.exists() and said.read_text())
            assert not held.exists()
        until(held.exists)
    assert said.read_text() == f"Waiting for the CPU, used by batchinfer job first (process {os.getpid()}) ..."


def test_a_killed_process_lets_go_of_its_devices(tmp_path: Path, temporary: Path) -> None:
    """The device of a process that was killed with -9 is free at once."""
    said: list[str] = []
    with process(*holder_arguments(tmp_path, "cpu"), temporary=temporary, log=tmp_path / "log") as first:
        until((tmp_path / "held").exists)
        first.kill()
        first.wait()
    with hold([Placement()], "batchinfer job second", said.append):
        pass
    assert said == []


def test_other_devices_are_free(tmp_path: Path, temporary: Path) -> None:
    """Only jobs that want the same device wait for each other."""
    said: list[str] = []
    with process(*holder_arguments(tmp_path, "GPU-a"), temporary=temporary, log=tmp_path / "log"):
        until((tmp_path / "held").exists)
        with hold([Placement(gpus=(GPUS[1],)), Placement()], "batchinfer job second", said.append):
            pass
    assert said == []


def test_gpus_that_no_other_job_holds_are_taken(commands: Path, temporary: Path) -> None:
    """A second job of one GPU runs beside the first one; one that needs more than are free waits for any of them."""
    install_smi(commands, LISTING)
    said: list[str] = []
    with hold_free(1, 1, "batchinfer job first", said.append) as first:
        assert indexes(first) == [["0"]]
        with hold_free(1, 2, "batchinfer job second", said.append) as second:
            assert indexes(second) == [["1", "2"]]
            with hold_free(1, 1, "batchinfer job third", said.append) as third:
                assert indexes(third) == [["3"]]
    assert said == []
    with hold_free("auto", 1, "batchinfer job first", said.append) as every:
        assert indexes(every) == [["0"], ["1"], ["2"], ["3"]]


def test_whichever_gpu_is_free_first_is_taken(commands: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the one that was looked at first: other jobs may hold that for hours."""
    install_smi(commands, "\n".join(LISTING.splitlines()[:2]))
    monkeypatch.setattr("batchinfer.engines.devices.LOOKING_SECONDS", 0.01)
    said: list[str] = []
    with hold([Placement(gpus=(GPUS[0],))], "batchinfer job first", print), contextlib.ExitStack() as second:
        second.enter_context(hold([Placement(gpus=(GPUS[1],))], "batchinfer job second", print))
        with hold_free(1, 1, "batchinfer job third", said.append, second.close) as taken:
            assert indexes(taken) == [["1"]]
    assert said == [f"Waiting for 1 GPU of 2; one is used by batchinfer job second (process {os.getpid()}) ..."]


def test_a_driver_that_hangs(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said in a sentence."""
    monkeypatch.setattr("batchinfer.engines.devices.SMI_SECONDS", 0.1)
    install_smi(commands, LISTING)
    (commands / "nvidia-smi").write_text("#!/bin/sh\nexec /bin/sleep 60\n", encoding="utf-8")
    with pytest.raises(StoreError, match=r"nvidia-smi did not answer within 0\.1 s"):
        find_gpus()


def test_a_wait_for_a_device_can_end(temporary: Path) -> None:
    """--max-hours counts while a run waits for another job's device: it ends resumably, and holds nothing."""
    said: list[str] = []
    stop = Stop(1e-12, said.append)
    with (
        hold([Placement()], "batchinfer job first", print),
        pytest.raises(Stopped, match="reached --max-hours") as stopped,
        hold([Placement()], "batchinfer job second", print, stop.check),
    ):
        raise AssertionError("the device was held by another")
    assert stopped.value.exit_code == 4


def test_devices_are_shared_between_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A device that another user locked first is waited for like any other, and taken afterwards."""
    said: list[str] = []
    with folder_for_all() as temporary:
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        program = HOLD.replace("said, held", BECOME_NOBODY + "said, held", 1)
        arguments = ["-c", program, str(temporary / "said"), str(temporary / "held"), '["cpu"]']
        with process(*arguments, temporary=temporary, log=tmp_path / "log") as first:
            until((temporary / "held").exists)
            owner = (temporary / "batchinfer-cpu.lock").stat().st_uid
            assert owner == (65534 if os.getuid() == 0 else os.getuid())
            killer = threading.Timer(2, first.kill)
            killer.start()
            with hold([Placement()], "batchinfer job second", said.append):
                pass
            killer.join()
        assert (temporary / "batchinfer-cpu.lock").stat().st_mode & 0o777 == 0o666
        assert said == [f"Waiting for the CPU, used by batchinfer job other (process {first.pid}) ..."]
