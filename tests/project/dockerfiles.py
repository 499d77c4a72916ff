"""Reads Dockerfiles, and runs their steps in a folder that stands for an image's file system."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVE, RUN = ROOT / "docker/serve.Dockerfile", ROOT / "docker/run.Dockerfile"
USER = 10001
INSTALLING = 600  # seconds, for an index that is slow to answer
Step = tuple[str, str]


def steps(dockerfile: Path) -> list[Step]:
    """(instruction, its text) in order, lines joined as Docker joins them."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line]


def only(dockerfile: Path, instruction: str) -> str:
    """The text of an instruction that stands once in a Dockerfile."""
    (text,) = [text for name, text in steps(dockerfile) if name == instruction]
    return text


def environment(dockerfile: Path) -> dict[str, str]:
    """What ENV sets."""
    return dict(word.split("=", 1) for word in shlex.split(only(dockerfile, "ENV")))


@dataclass
class Build:
    """Runs a Dockerfile's steps below a folder that stands for an image's file system. Makes no users.

    interpreter: what `python` and `python3` are. inherited: environment of the base image.
    """

    root: Path
    interpreter: str
    inherited: Mapping[str, str] = field(default_factory=dict)
    folder: Path = ROOT

    def __post_init__(self) -> None:
        for name in ("python", "python3"):
            program = self.root / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(f'#!/bin/sh\nexec {self.interpreter} "$@"\n', encoding="utf-8")
            program.chmod(0o755)

    def mapped(self, text: str) -> str:
        """The text with the image's absolute paths below `root`."""
        return re.sub(r"(?<![\w.])/(?=(opt|wheels|src|data|cache|work)\b)", f"{self.root}/", text)

    def take(self, instructions: Sequence[Step]) -> None:
        """Takes the steps up to here; what only says how a container starts is left out."""
        for name, text in instructions:
            if name == "WORKDIR":
                self.folder = Path(self.mapped(text))
                self.folder.mkdir(parents=True, exist_ok=True)
            elif name == "COPY" and not text.startswith("--from"):
                *sources, target = text.split()
                for source in sources:
                    self._copy(ROOT / source, self.folder / target)
            elif name == "RUN" and not text.startswith("groupadd"):
                self._run(text)

    def _copy(self, source: Path, target: Path) -> None:
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)

    def _run(self, text: str) -> None:
        path = f"{self.root}/bin:{os.environ['PATH']}"
        done = subprocess.run(
            ["/bin/sh", "-c", self.mapped(text)], cwd=self.folder, env={**os.environ, **self.inherited, "PATH": path},
            capture_output=True, text=True, check=False, timeout=INSTALLING,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
