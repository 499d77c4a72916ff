"""What the benchmark of matching measures in processes of their own, so that each peak of memory is that of one thing.

    python -m benchmarks.builds terms FOLDER SECTION | start VERSION TEXTS | LIBRARY FORMS TEXTS

Each prints a JSON object. FOLDER has a predictions.parquet and a manifest.json; SECTION is a JSON file, as are FORMS and
TEXTS, which are lists.
"""

from __future__ import annotations

import functools
import gc
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ROUNDS = 5


def alone(work: str, *arguments: str | Path) -> dict[str, Any]:
    """What one of the functions below says, run in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.builds", work, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def daachorse(forms: Sequence[str]) -> Callable[[str], Any]:
    """An automaton of these; returns its search for all that it finds, overlapping."""
    import daachorse as library

    return library.CharwiseDoubleArrayAhoCorasick(list(forms)).find_overlapping


def ahocorasick_rs(forms: Sequence[str]) -> Callable[[str], Any]:
    """The same of the other library."""
    import ahocorasick_rs as library

    found = library.AhoCorasick(list(forms), store_patterns=False)
    return functools.partial(found.find_matches_as_indexes, overlapping=True)


LIBRARIES = {"daachorse": daachorse, "ahocorasick_rs": ahocorasick_rs}


def library(name: str, forms: Path, texts: Path) -> dict[str, Any]:
    """Builds an automaton and searches texts: seconds, peak GiB above the list of forms, µs a text in each round."""
    listed, asked = json.loads(forms.read_bytes()), json.loads(texts.read_bytes())
    before, began = memory("VmRSS"), time.perf_counter()
    find = LIBRARIES[name](listed)
    built = {"seconds": time.perf_counter() - began, "peak_gib": memory("VmHWM") - before, "forms": len(listed)}
    return built | {"microseconds": [per_text(find, asked) for _ in range(ROUNDS)]}


def per_text(find: Callable[[str], Any], texts: Sequence[str]) -> float:
    """Microseconds that a search takes on average."""
    began = time.perf_counter()
    for text in texts:
        find(text)
    return (time.perf_counter() - began) / len(texts) * 1e6


def memory(row: str, process: str = "self") -> float:
    """GiB that the kernel says in a row of status (VmRSS, VmHWM) or of smaps_rollup (Private_Dirty, Pss)."""
    place = Path(f"/proc/{process}")
    said = re.search(
        rf"^{row}:\s+(\d+) kB",
        (place / ("status" if row.startswith("Vm") else "smaps_rollup")).read_text("ascii"),
        re.MULTILINE,
    )
    assert said is not None
    return int(said[1]) / (1 << 20)


def terms(folder: Path, section: Path) -> dict[str, Any]:
    """Writes a matcher from the predictions in a folder: seconds, peak GiB of the whole process, and what it holds."""
    from batchinfer.core.columns import Column
    from batchinfer.job.spec import MatchSpec
    from batchinfer.match.version import MATCHER
    from batchinfer.publish import matcher as step

    manifest = json.loads((folder / "manifest.json").read_bytes())
    key = [Column(column["name"], column["kind"]) for column in manifest["key"]]
    spec = MatchSpec.model_validate_json(section.read_bytes())
    began = time.perf_counter()
    found = step.write_matcher(key, folder, spec, is_json=manifest["prediction"] == "json")
    seconds = time.perf_counter() - began
    assert found is not None
    held = {"terms": found.terms, "entries": found.entries, "mib": (folder / MATCHER).stat().st_size / (1 << 20)}
    return held | {"seconds": seconds, "peak_gib": memory("VmHWM")}


def start(version: Path, texts: Path) -> dict[str, Any]:
    """Opens a version, looks something up, opens its matcher and matches: seconds, and private MB after each step."""
    from batchinfer.versions.snapshot import Snapshot

    asked = json.loads(texts.read_bytes())
    with Snapshot(version) as snapshot:
        snapshot.get({"symbol": "💉", "locale": "en"})
        without, began = memory("Private_Dirty"), time.perf_counter()
        matcher = snapshot.matcher
        matcher.find(asked[0])
        seconds = time.perf_counter() - began
        opened, most = memory("Private_Dirty"), memory("VmHWM")
        for text in asked:
            matcher.find(text)
        gc.collect()
        return {
            "seconds": seconds, "without_mb": without * 1024, "opened_mb": opened * 1024, "peak_mb": most * 1024,
            "used_mb": memory("Private_Dirty") * 1024,
        }  # fmt: skip


def main() -> None:
    """Prints what one of them measured."""
    work, *arguments = sys.argv[1:]
    places = list(map(Path, arguments))
    works: dict[str, Callable[..., dict[str, Any]]] = {"terms": terms, "start": start}
    said = library(work, *places) if work in LIBRARIES else works[work](*places)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
