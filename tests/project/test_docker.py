"""The Dockerfiles and the compose file are linted, and fit each other, the code and the docs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from batchinfer.serve.server import LAST_ROUND_SECONDS, SERVICE_STOP_SECONDS
from tests.project.dockerfiles import ROOT, RUN, SERVE, USER, environment, only, steps
from tests.project.test_docs import check_parses

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker/compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]


@pytest.mark.parametrize("dockerfile", [SERVE, RUN], ids=lambda path: path.name)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    """The linter for Dockerfiles has nothing to say, not even as information."""
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([str(program), "--no-color", str(dockerfile)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_tag_of_vllm_fits_the_extra() -> None:
    """The runner's base image is a release of vLLM that pyproject.toml allows, by its full number."""
    (tag,) = re.findall(r"^FROM vllm/vllm-openai:v(\d+\.\d+\.\d+)$", RUN.read_text(encoding="utf-8"), re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (wanted,) = [line.removeprefix("vllm") for line in extras["vllm"] if line.startswith("vllm")]
    assert tag in SpecifierSet(wanted)


def test_every_python_image_has_the_same_minor_version() -> None:
    """Builder, service and runner make the same lookup keys: another Python may know another Unicode."""
    text = SERVE.read_text(encoding="utf-8") + RUN.read_text(encoding="utf-8")
    assert set(re.findall(r"^FROM python:(\S+)", text, re.MULTILINE)) == {"3.12-slim-trixie"}


@pytest.mark.parametrize("dockerfile", [SERVE, RUN], ids=lambda path: path.name)
def test_both_images_run_as_the_same_user_by_number(dockerfile: Path) -> None:
    """Service and runner own the files that they share, and Kubernetes can see that the user is not root."""
    assert only(dockerfile, "USER") == f"{USER}:{USER}"
    made = next(text for name, text in steps(dockerfile) if text.startswith("groupadd"))
    assert f"--gid {USER}" in made
    assert f"--uid {USER}" in made
    assert re.search(rf"install --directory --owner={USER} --group={USER} /data\b", made)
    assert environment(dockerfile)["BATCHINFER_HOME"] == "/data"


@pytest.mark.parametrize("dockerfile", [SERVE, RUN], ids=lambda path: path.name)
def test_entrypoints_are_no_shell(dockerfile: Path) -> None:
    """Signals reach the program: entry point and command are lists, and what they call is a command there is."""
    words = [*json.loads(only(dockerfile, "ENTRYPOINT")), *json.loads(only(dockerfile, "CMD"))]
    check_parses(shlex.join(words))


def test_the_build_context_holds_what_is_copied_and_no_more() -> None:
    """.dockerignore leaves everything out, data folders and keys too, but what the images are built from."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    copied = {
        source
        for dockerfile in (SERVE, RUN)
        for name, text in steps(dockerfile)
        if name == "COPY" and not text.startswith("--from")
        for source in text.split()[:-1]
    }
    assert patterns[0] == "*"
    assert {pattern[1:] for pattern in patterns if pattern.startswith("!")} == copied
    assert all((ROOT / source).exists() for source in copied)


@pytest.mark.parametrize("name", ["serve", "runner"])
def test_services_are_locked_down(name: str) -> None:
    """Both run without capabilities on a read-only root, and can write to the shared volume and /tmp."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [mount.split(":")[0] for mount in service["tmpfs"]] == ["/tmp"]
    assert "data:/data" in service["volumes"]
    assert "privileged" not in service
    dockerfile = (ROOT / "docker" / service["build"]["context"] / service["build"]["dockerfile"]).resolve()
    assert dockerfile in (SERVE, RUN)
    mounted = {mount.rsplit("}", 1)[-1].split(":")[1] for mount in service["volumes"]}
    written = {value for key, value in environment(dockerfile).items() if key in ("BATCHINFER_HOME", "HOME")}
    assert written <= mounted
    assert {mount.split(":")[0] for mount in service["volumes"] if mount[0].isalpha()} <= set(COMPOSE["volumes"])


def test_only_the_service_starts_by_itself() -> None:
    """`up` starts the service alone; the runner waits for its profile, and has the GPUs."""
    assert [name for name, service in SERVICES.items() if not service.get("profiles")] == ["serve"]
    assert SERVICES["runner"]["profiles"] == ["run"]
    devices = {name: service.get("deploy") for name, service in SERVICES.items()}
    assert devices["serve"] is None
    (device,) = devices["runner"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


def test_ports_and_times_fit_together() -> None:
    """The published port is the one that is listened on, on loopback only; a stop leaves time for what is in flight."""
    command = json.loads(only(SERVE, "CMD"))
    port = command[command.index("--port") + 1]
    assert only(SERVE, "EXPOSE") == port
    assert SERVICES["serve"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f":{port}/livez" in only(SERVE, "HEALTHCHECK")
    assert int(SERVICES["serve"]["stop_grace_period"].removesuffix("s")) > SERVICE_STOP_SECONDS + LAST_ROUND_SECONDS


def test_commands_of_the_page_are_understood() -> None:
    """What docs/docker.md has a container do is a command of batchinfer, for a service of the compose file."""
    page = (ROOT / "docs/docker.md").read_text(encoding="utf-8")
    calls = re.findall(r"docker compose (?:-f \S+ )?run --rm(?: -T)? (\w+) (.*?)(?:  .*|\n)", page)
    assert len(calls) > 3
    for service, words in calls:
        assert service in SERVICES
        check_parses(f"batchinfer {words}")
