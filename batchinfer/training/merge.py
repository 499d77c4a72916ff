"""The base model with its adapter merged in, as a model folder of its own: faster to serve, but a model of its own in memory.

`python -m batchinfer.training.merge SOURCE REVISION ADAPTER TARGET` is the process that does it; an empty REVISION is none.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from batchinfer.core.home import JobData
from batchinfer.core.own_process import command_of, end_with_parent, environment
from batchinfer.core.records import Info
from batchinfer.engines import models
from batchinfer.engines.adapter import adapter_faults
from batchinfer.engines.devices import Placement, hold
from batchinfer.engines.models import ModelIdentity, why_unloaded
from batchinfer.errors import ModelError, UsageError
from batchinfer.job.reader import Job, faulty, placing
from batchinfer.training.folders import NAMED, alone, drafted, keep
from batchinfer.training.provenance import base_note, libraries, write_note
from batchinfer.training.room import check_room, weights_memory
from batchinfer.training.trainer import load_base

MERGED = "merged"
CPU = Placement(cores=tuple(sorted(os.sched_getaffinity(0))))  # a merge is no work for a GPU


@dataclass(frozen=True, slots=True)
class MergeReport:
    """A model that was written.

    job: its name.
    adapter: the folder of the adapter, as the job file names it.
    merged: the model's folder, below that of the job file.
    """

    job: str
    adapter: str
    merged: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def merge_adapter(job: Job, data: JobData, info: Info) -> MergeReport:
    """Writes the job's model with its adapter merged in. Raises UsageError without an adapter, SpecError or ModelError."""
    model = job.spec.model
    if model is None or model.adapter is None:
        raise UsageError(
            f"The job {job.name} has no model.adapter to be merged: train one first, and name it in {job.path}."
        )
    with placing(job):
        identity = models.resolve(job, data)
    if faults := adapter_faults(identity, data):
        raise faulty(job, [(("model", "adapter"), fault) for fault in faults])
    assert identity.adapter_digest is not None
    target = job.folder / MERGED / identity.adapter_digest[:NAMED]
    if not target.is_dir():
        data.bind(job.path)
        with alone(data), drafted(target.parent) as draft:
            _merge(job, data, identity, draft, info)
            keep(draft, target)
    return MergeReport(job.name, model.adapter, str(target.relative_to(job.folder)))


def _merge(job: Job, data: JobData, identity: ModelIdentity, draft: Path, info: Info) -> None:
    """Has a process of its own do it, since torch is not for this one, in its turn with other jobs. Raises ModelError."""
    source = models.weights(identity, data, info)
    folder = models.files_of(source, identity.revision)
    with hold([CPU], f"batchinfer finetune {job.name} --merge", info):
        needed = weights_memory(folder)
        check_room(needed, CPU, "Merging", "end what else takes memory, or serve the model with its adapter.")
        info("Merging ...")
        done = subprocess.run(
            command_of(__name__, source, identity.revision or "", str(identity.adapter), str(draft)),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment(),
        )  # fmt: skip
    if done.returncode != 0:
        killed = "its process was killed, as the system does where memory is short"
        last = (
            killed if done.returncode == -signal.SIGKILL else (done.stderr.strip().splitlines() or ["no message"])[-1]
        )
        raise ModelError(f"The adapter could not be merged: {last}")
    adapter = {"digest": identity.adapter_digest}
    write_note(draft, base_note(identity, folder) | {"adapter": adapter, "libraries": libraries()})


def write_merged(source: str, revision: str | None, adapter: str, target: Path) -> None:
    """Writes the merged model, in the precision of the base model. Merged in float32, so that rounding comes last."""
    from batchinfer.engines.environment import hide_vision_packages

    hide_vision_packages()
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    merged = PeftModel.from_pretrained(load_base(source, revision), adapter).merge_and_unload()
    merged.to(getattr(config, "dtype", None) or torch.float32).save_pretrained(target)
    AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False).save_pretrained(target)


if __name__ == "__main__":
    end_with_parent()
    try:
        write_merged(sys.argv[1], sys.argv[2] or None, sys.argv[3], Path(sys.argv[4]))
    except Exception as exc:  # noqa: BLE001 - whatever the files hold
        sys.exit(why_unloaded(exc))
