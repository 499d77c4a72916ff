"""A job's model id → its weights, resolved once and recorded, so that a key never changes by itself."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from batchinfer.core.files import read_small, real_path
from batchinfer.core.home import JobData
from batchinfer.core.records import Info
from batchinfer.engines import bundled, unknown_tokens
from batchinfer.engines.digests import folder_digest
from batchinfer.errors import MissingExtra, ModelError
from batchinfer.job.model_spec import ModelSpec
from batchinfer.job.reader import Job

SHOWN_DIGITS = 12  # of a commit or digest
LOADED = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")  # files of a hub model that training looks at
OTHER_FORMS = ("*/*", "consolidated*")  # the same weights once more, as others load them


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """A model whose weights are known exactly.

    source: the id as vLLM takes it, a folder or a hub id.
    revision: a hub commit; None for a folder.
    digest: stands for the weights in keys.
    label: for people, with the beginning of the adapter's digest where it has one.
    adapter: folder of its LoRA adapter, or None.
    adapter_digest: stands for the adapter in keys.
    """

    source: str
    revision: str | None
    digest: str
    label: str
    adapter: str | None = None
    adapter_digest: str | None = None

    @property
    def base_label(self) -> str:
        """The label of the model without its adapter."""
        return self.label if self.adapter_digest is None else self.label.removesuffix(_suffix(self.adapter_digest))

    @property
    def exact_label(self) -> str:
        """The label, also told apart from that of other weights in the same folder."""
        return f"{self.label} {self.digest[:SHOWN_DIGITS]}" if Path(self.source).is_absolute() else self.label

    @property
    def weights(self) -> tuple[str, str | None]:
        """What tells models apart, however they are spelled."""
        return self.digest, self.adapter_digest


def why_unloaded(exc: Exception) -> str:
    """Why transformers did not load a model or a tokenizer, as the rest of a sentence."""
    if "trust_remote_code" in str(exc):
        return "it brings code of its own, which batchinfer does not run: take one that transformers knows by itself."
    return next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)


def resolve(job: Job, data: JobData, *, update: bool = False) -> ModelIdentity:
    """The job's model, resolved. Raises ModelError.

    Of a model that was used before, a hub commit is taken from the record, and a folder or adapter whose files
    changed since is refused, unless `update`. Records nothing: `remember` does, once it is used.
    """
    spec = job.spec.model
    if spec is None:
        raise ModelError(f"The job {job.name} has no model: it has only imported answers.")
    known = None if update else data.record().model(_request(spec))
    identity = _identify(spec, job, known.revision if known else None)
    if known and (known.digest, known.adapter_digest) != identity.weights:
        raise ModelError(
            f"The files of {spec.id if known.digest != identity.digest else spec.adapter} changed since the last run: "
            f"run again with --update-model to use them, or put the old files back."
        )
    return identity


def remember(job: Job, data: JobData, identity: ModelIdentity) -> None:
    """Records the identity, so that the job's model stays the same."""
    assert job.spec.model is not None
    data.write_record(data.record().with_model(_request(job.spec.model), asdict(identity)))


def _request(spec: ModelSpec) -> str:
    """The job file's settings of the model's weights, as one text."""
    return json.dumps([spec.id, spec.revision, spec.adapter])


def weights(identity: ModelIdentity, data: JobData, info: Info) -> str:
    """The folder or hub id that an engine loads the model from. Converts the bundled model first if need be."""
    if identity.source.startswith(bundled.PREFIX):
        there = place_of(identity, data)
        return there if Path(there).is_dir() else str(bundled.ensure(bundled.shared_folder(), identity.digest, info))
    return identity.source


def place_of(identity: ModelIdentity, data: JobData) -> str:
    """The same, of a model whose weights may not be there yet."""
    if not identity.source.startswith(bundled.PREFIX):
        return identity.source
    older = bundled.folder(data.models, identity.digest)
    return str(older if older.is_dir() else bundled.folder(bundled.shared_folder(), identity.digest))


def files_of(source: str, revision: str | None) -> Path | None:
    """The folder of a model's files, where they are on this machine or can be fetched to it; None where they cannot.

    source: a folder, or a hub id, whose files of this commit the hub's own cache then has, in the form that is loaded.
    """
    if Path(source).is_dir():
        return Path(source)
    try:
        from huggingface_hub import snapshot_download

        wanted = {"allow_patterns": list(LOADED), "ignore_patterns": list(OTHER_FORMS)}
        return Path(snapshot_download(source, revision=revision, **wanted))
    except Exception:  # noqa: BLE001 - no hub, no network, no room: what loads the model says so with its reasons
        return None


def _local(spec: ModelSpec, job: Job) -> Path | None:
    if spec.id.startswith(("/", ".", "~")) or (job.folder / spec.id).is_dir():
        return real_path(job.folder / Path(spec.id).expanduser())
    return None


def _identify(spec: ModelSpec, job: Job, commit: str | None) -> ModelIdentity:
    at = (*job.model_at, "id")
    adapter = job.inside(".".join((*job.model_at, "adapter")), spec.adapter) if spec.adapter else None
    extra: dict[str, Any] = {}
    suffix = ""
    if adapter is not None:
        if not (adapter / "adapter_config.json").is_file():
            there = "it has no adapter_config.json" if adapter.is_dir() else "there is no such folder"
            raise ModelError(f"{adapter} is not a LoRA adapter: {there}.", field=(*job.model_at, "adapter"))
        extra = {"adapter": str(adapter), "adapter_digest": folder_digest(adapter)}
        suffix = _suffix(extra["adapter_digest"])
    if spec.id.startswith(bundled.PREFIX):
        if spec.id != bundled.PREFIX + bundled.NAME:
            said = f"There is no model {spec.id}: the only bundled one is {bundled.PREFIX}{bundled.NAME}."
            raise ModelError(said, field=at)
        return ModelIdentity(spec.id, None, bundled.digest(), spec.id + suffix, **extra)
    if folder := _local(spec, job):
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"There is no model in {folder}: a model folder holds config.json, weights and a tokenizer.", field=at
            )
        return ModelIdentity(str(folder), None, folder_digest(folder), spec.id + suffix, **extra)
    if spec.id.startswith(unknown_tokens.PREFIX):
        return _at_server(spec, job)
    commit = commit or hub_commit(spec.id, spec.revision, job.model_at)
    label = f"{spec.id}@{commit[:SHOWN_DIGITS]}{suffix}"
    return ModelIdentity(spec.id, commit, f"{spec.id}@{commit}", label, **extra)


def _at_server(spec: ModelSpec, job: Job) -> ModelIdentity:
    """A model whose files nobody but its server has: its name is all that it is known by."""
    if job.spec.engine.kind not in ("openai", "openai_batch"):
        said = f"{spec.id} is a model that only its server has: set engine.kind to openai or openai_batch, or take a model with files."
        raise ModelError(said, field=(*job.model_at, "id"))
    if spec.adapter or spec.revision:
        raise ModelError(
            f"{spec.id} has no adapter and no revision: its server has it as it is.", field=(*job.model_at, "id")
        )
    return ModelIdentity(spec.id, None, spec.id, spec.id)


def _suffix(adapter_digest: str) -> str:
    """What the label of a model with an adapter ends with."""
    return f"+{adapter_digest[:SHOWN_DIGITS]}"


def hub_commit(model: str, revision: str | None, at: tuple[str, ...] = ("model",)) -> str:
    """The commit of a hub model's branch or tag, from the hub, or from the local cache without a network.

    at: the place of the model in the job file.
    """
    try:
        from huggingface_hub import HfApi, try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
        from huggingface_hub.utils import validate_repo_id
    except ImportError as exc:
        raise MissingExtra("huggingface_hub, with which a model is looked up,") from exc
    try:
        validate_repo_id(model)
        found = (
            None
            if os.environ.get("HF_HUB_OFFLINE") == "1"
            else HfApi().model_info(model, revision=revision, timeout=20).sha
        )
        if found:
            return str(found)
    except HFValidationError as exc:
        said = f"There is no model {model}: that is neither a folder nor a hub id such as org/name."
        raise ModelError(said, field=(*at, "id")) from exc
    except (RepositoryNotFoundError, RevisionNotFoundError) as exc:
        named = f" at revision {revision}" if revision else ""
        said = f"The hub has no model {model}{named}, or it requires a login."
        raise ModelError(said, field=(*at, "revision" if revision else "id")) from exc
    except Exception:  # noqa: BLE001, S110 - no network, or a hub that answers oddly: its client's errors share no base
        pass
    cached = try_to_load_from_cache(model, "config.json", revision=revision)
    if isinstance(cached, str):
        return Path(cached).parent.name
    raise ModelError(
        f"The model {model} is not on this machine, and no model hub can be reached: correct the id, or connect this machine to the hub.",
        field=(*at, "id"),
    )


def adapter_rank(folder: str | None) -> int:
    """The rank of a LoRA adapter, rounded up to one that vLLM knows."""
    if folder is None:
        return 16
    rank = int(json.loads(read_small(Path(folder) / "adapter_config.json")).get("r", 16))
    return next((known for known in (8, 16, 32, 64, 128, 256, 320, 512) if rank <= known), rank)
