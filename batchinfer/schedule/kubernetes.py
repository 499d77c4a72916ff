"""A CronJob for each job, for Kubernetes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import yaml

from batchinfer.errors import SpecError, UsageError
from batchinfer.job.engine_spec import ServerSpec, VllmSpec
from batchinfer.schedule.agenda import ScheduledJob
from batchinfer.schedule.place import Target, UnitFile, hours_option, plain_line

KIND = "kubernetes"
LONGEST = 52  # characters of a CronJob's name
DIGITS = 8  # of a hash, where a name had to be changed
USER = 10001  # of docker/run.Dockerfile
LATE_SECONDS = 3600  # that a run may begin after its time, where the cluster was away
SHARED = "/dev/shm"  # noqa: S108 - of the container: processes of one engine share memory there
GRACE_SECONDS = 120  # that a run has to commit what is finished


def kubernetes_files(entries: Sequence[ScheduledJob], target: Target) -> list[UnitFile]:
    """One file. Raises UsageError."""
    manifests = [yaml.safe_dump(manifest(entry, target), sort_keys=False) for entry in entries]
    return [UnitFile("batchinfer-cronjobs.yaml", "---\n".join(manifests))]


def manifest(entry: ScheduledJob, target: Target) -> dict[str, Any]:
    """A CronJob. The claim has the folders data, jobs and cache. Raises UsageError for a list of this machine."""
    _check_list(entry)
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": resource_name(entry.name), "labels": {"app.kubernetes.io/name": "batchinfer"}},
        "spec": {
            "schedule": plain_line(entry, KIND),
            "timeZone": entry.schedule.timezone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": LATE_SECONDS,
            "jobTemplate": {"spec": {"backoffLimit": 0, "template": {"spec": _pod(entry, target)}}},
        },
    }


def _check_list(entry: ScheduledJob) -> None:
    """Raises UsageError for a list that lies on this machine, and not in the job's folder."""
    path, here = entry.job.spec.input.path, "put the list into the job's folder, which the volume claim has."
    try:
        if path is not None:
            replace(entry.job, roots=()).inside("input.path", path)
    except SpecError as exc:
        raise UsageError(f"The list of {entry.name}, {path}, is not there in a container: {here}") from exc
    if entry.job.spec.input.sql is not None and entry.job.roots:
        roots = ", ".join(map(str, entry.job.roots))
        raise UsageError(f"The query of {entry.name} may read below {roots}, which is not there in a container: {here}")


def _pod(entry: ScheduledJob, target: Target) -> dict[str, Any]:
    gpus = _gpus(entry)
    folders = {"data": "/data", "jobs": "/work/jobs", "cache": "/cache"}
    mounts: list[dict[str, Any]] = [
        {"name": "batchinfer", "subPath": name, "mountPath": path} for name, path in folders.items()
    ]
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER, "runAsNonRoot": True},
        "containers": [
            {
                "name": "run",
                "image": target.image,
                "args": ["run", f"jobs/{entry.job.folder.name}", *hours_option(entry)],
                **({"env": secrets} if (secrets := _secrets(entry)) else {}),
                "volumeMounts": [*mounts, {"name": "shm", "mountPath": SHARED}],
                "resources": {"limits": {"nvidia.com/gpu": gpus}} if gpus else {},
            }
        ],
        "volumes": [
            {"name": "batchinfer", "persistentVolumeClaim": {"claimName": target.claim}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}},
        ],
    }


def _secrets(entry: ScheduledJob) -> list[dict[str, Any]]:
    """The variables that the job's alerts and its engine's server need, each a key of the secret batchinfer."""
    names = {
        name
        for alert in entry.job.spec.alerts
        for name in (alert.secret_env, *((alert.mail.user_env, alert.mail.password_env) if alert.mail else ()))
        if name
    }
    engine = entry.job.spec.engine
    if isinstance(engine, ServerSpec) and engine.api_key_env:
        names.add(engine.api_key_env)
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": "batchinfer", "key": name, "optional": True}}}
        for name in sorted(names)
    ]


def _gpus(entry: ScheduledJob) -> int:
    """How many a run asks for: one group, unless the job says how many; none where no model is asked on its machine."""
    engine = entry.job.spec.engine
    if entry.job.spec.model is None or not isinstance(engine, VllmSpec):
        return 0
    return engine.tensor_parallel * (1 if engine.replicas == "auto" else engine.replicas)


def resource_name(job: str) -> str:
    """A name that Kubernetes takes: without _, and not too long. What had to be changed ends in a hash, so that no two are alike."""
    plain = f"batchinfer-{job}"
    if "_" not in plain and len(plain) <= LONGEST and not plain.endswith("-"):
        return plain
    digest = hashlib.sha256(job.encode()).hexdigest()[:DIGITS]
    return f"{plain.replace('_', '-')[: LONGEST - DIGITS - 1].rstrip('-')}-{digest}"
