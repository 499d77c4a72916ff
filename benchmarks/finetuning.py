"""Measures an adapter: what it gains on people's answers, how long its training takes, and what it saves as a cascade's large model.

    python -m benchmarks.finetuning [--folder FOLDER]

`batchinfer finetune` trains on the labels of jobs/sentiment with the bundled model, and `batchinfer run` asks jobs/tweets_cascade with
that adapter as the large model. Limits on 2 cores that nobody else uses: an area under the ROC curve 0.05 better and a share that is
right 0.10 better on golden rows, 90 seconds of training, and 0.02 between the log-probabilities of vLLM and of the training process.
The large model's share of the list has none: of such a pair it is what it is. --folder keeps jobs and answers, so that what was stopped
goes on. It takes ten minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

JOBS = Path(__file__).parents[1] / "jobs"
SENTIMENT, CASCADE = "sentiment", "tweets_cascade"


def batchinfer(folder: Path, *words: str) -> dict[str, Any]:
    """What a command prints as JSON. Its progress is shown."""
    command = [sys.executable, "-m", "batchinfer", "--home", str(folder / "home"), *words, "--json"]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=folder).stdout
    found: dict[str, Any] = json.loads(said)
    return found


def print_adapter(report: dict[str, Any]) -> None:
    """What it gains, and what it took."""
    print(f"{report['base']}, {report['rows']} rows learned in {report['steps']} steps, on {report['held_from']}:")
    for name, better in (("area", 0.05), ("accuracy", 0.10), ("loss", None)):
        before, after = report["before"][name], report["after"][name]
        limit = "" if better is None else f" (limit: {better} better)"
        print(f"{name:<9} {before:.3f} without it, {after:.3f} with it{limit}")
    print(f"training {report['seconds']:.0f} s (limit 90 s)")
    parity = report["parity"]
    print(f"vLLM beside peft: {parity['largest']:.5f} on {parity['rows']} rows (limit {parity['bound']})")


def print_shares(shared: dict[str, Any], rows: int) -> None:
    """Which model answers how much."""
    if shared["threshold"] is None:
        print(f"cascade: the large model answers all, since {shared['problem']}")
        return
    small, large = shared["small"], shared["large"]
    print(
        f"cascade of {rows:,} tweets, agree {shared['agree']}: from a score of {shared['threshold']:.3f} on the small model answers "
        f"{small['answers'] / rows:.0%}; the large one is asked {large['asked'] / rows:.0%}; they agree on {shared['agreement']:.1%} of "
        f"what has such a score in the sample of {shared['sample']}"
    )
    for name in ("small", "large"):
        if rate := shared[name]["rows_per_second"]:  # none where all was kept from a run before
            print(f"{name}: {rate:.1f} rows/s")


def measure(folder: Path) -> None:
    """Trains, runs, and prints."""
    for name in (SENTIMENT, CASCADE):
        shutil.copytree(
            JOBS / name, folder / "jobs" / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("adapter*")
        )
    report = batchinfer(folder, "finetune", SENTIMENT)
    print_adapter(report)
    shutil.copytree(
        folder / "jobs" / SENTIMENT / report["adapter"], folder / "jobs" / CASCADE / "adapter", dirs_exist_ok=True
    )
    done = batchinfer(folder, "run", CASCADE, "--yes")
    print_shares(done["cascade"], done["unique"])


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where jobs and answers are kept")
    folder: Path | None = parser.parse_args().folder
    with tempfile.TemporaryDirectory(prefix="batchinfer-bench-") as name:
        measure((folder or Path(name)).resolve())


if __name__ == "__main__":
    main()
