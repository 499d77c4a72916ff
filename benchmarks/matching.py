"""Measures matching on real terms: how fast, how much memory, and whether it is right in every locale.

    python -m benchmarks.matching [--cldr PATH] [--rounds 5] [--seconds 5] [--terms 200]

The terms are what people call each emoji in some 170 locales (the npm package cldr-annotations-full, as .tgz or
unpacked; without --cldr npm brings it), imported as predictions: over a million keywords. Texts are 60 characters of a
sentence in the locale's script with one of its terms in it, each locale as often as any other.

Printed are: the build of the matcher, in a process of its own; the search of one text in this process, beside that of
the bare automaton in the same text folded beforehand; texts/s of one server process on core 0, asked by wrk on core 1 in
batches of 100; what a worker's start takes; and for so many terms of each locale whether they are found, with the right
spans, in a sentence and inside a longer word. It ends with 1 if any is not as it should be.

Needs wrk. ahocorasick_rs is measured beside daachorse if it is installed. It does not show several workers, a network,
or texts of other lengths.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb

from batchinfer.core.sql import literal
from batchinfer.match.folding import EDGE, Folding
from batchinfer.match.matcher import Matcher
from batchinfer.match.version import MATCHER
from batchinfer.versions import folders, pointers
from batchinfer.versions.layout import MANIFEST, PREDICTIONS
from benchmarks import builds, carriers
from benchmarks.cldr import JOB, MATCH, Locale, Text, kind_of, make, read, texts
from benchmarks.matched import BATCH, Answers, Results, Times, report
from benchmarks.servers import LOAD_CORE, SERVER_CORE, free_port, need_wrk, running, say, service
from benchmarks.serving import private_memory

EACH = 30  # texts of each locale
CONNECTIONS = 4
SAMPLE = 5  # batches whose answers are compared with those of this process


def timed(work: Callable[[Any], Any], arguments: Sequence[Any]) -> list[float]:
    """Microseconds of each single call."""
    clock, taken = time.perf_counter_ns, []
    for argument in arguments:
        began = clock()
        work(argument)
        taken.append((clock() - began) / 1000)
    return taken


def in_process(
    matcher: Matcher, forms: Sequence[str], asked: Sequence[Text], rounds: int
) -> tuple[list[float], list[Times]]:
    """Matcher.find of a matcher just opened, and rounds after that.

    The bare automaton is of the same forms, and searches what was folded before.
    """
    fold, bare = Folding(), builds.daachorse(forms)
    marked = [fold(text.text).marked for text in asked]
    plain = [text.text for text in asked]
    timed(bare, marked)  # once, so that all is in memory
    first = timed(matcher.find, plain)
    return first, [Times(timed(bare, marked), timed(matcher.find, plain)) for _ in range(rounds)]


def otherwise(matcher: Matcher, asked: Sequence[Text], rounds: int) -> dict[str, list[list[float]]]:
    """The same of other ways to ask: rounds by way."""
    ways: dict[str, Callable[[Text], Any]] = {
        "all, as JSON": lambda text: matcher.find_json(text.text),
        "all, in their language": lambda text: matcher.find(text.text, languages=[text.locale]),
    }
    return {way: [timed(work, asked) for _ in range(rounds + 1)][1:] for way, work in ways.items()}


def candidate(
    version: Path, folder: Path, section: dict[str, Any], predictions: str | None = None
) -> tuple[Path, Path]:
    """A folder from which `builds.terms` can build, and the file with the match section.

    predictions: SQL for a table in place of the version's own, which it names {own}.
    """
    folder.mkdir()
    (folder / MANIFEST).write_bytes((version / MANIFEST).read_bytes())
    (folder / "section.json").write_text(json.dumps(section), encoding="utf-8")
    own, target = f"read_parquet({literal(str(version / PREDICTIONS))})", literal(str(folder / PREDICTIONS))
    duckdb.sql(
        f"COPY ({(predictions or 'FROM {own}').format(own=own)}) TO {target} (FORMAT parquet, ROW_GROUP_SIZE 20480)"
    )
    return folder, folder / "section.json"


PAIRED = """
    SELECT * EXCLUDE names REPLACE (json_object('names', list_concat(names, CASE WHEN hash(symbol || locale) % 100 < 68 THEN
        list_transform(range(1, len(names)), lambda n: names[n] || ' ' || names[n + 1]) END))::VARCHAR AS prediction)
    FROM (SELECT *, from_json(prediction, '{{"names": ["VARCHAR"]}}').names AS names FROM {own})"""
"""Two of a symbol's names put together are terms, too, in two entries of three: a million different ones in all."""


def by_http(port: int, asked: Sequence[Text], given: argparse.Namespace, folder: Path, matcher: Matcher) -> list[float]:
    """Texts/s in each round. A sample of the answers is compared with this process's."""
    bodies = [
        json.dumps({"texts": [text.text for text in asked[at : at + BATCH]]}, ensure_ascii=False)
        for at in range(0, len(asked) - BATCH + 1, BATCH)
    ]
    for number in range(SAMPLE):
        compare(port, bodies[number], matcher)
    lua = folder / "match.lua"
    listed = ",\n".join(f"[====[{body}]====]" for body in bodies)
    lua.write_text(
        f"local bodies, next = {{{listed}}}, 0\nlocal headers = {{['Content-Type'] = 'application/json'}}\n"
        "request = function()\n  next = next % #bodies + 1\n"
        f"  return wrk.format('POST', '/v1/jobs/{JOB}/match', headers, bodies[next])\nend\n",
        encoding="utf-8",
    )
    load(port, 3, lua)
    return [load(port, given.seconds, lua) * BATCH for _ in range(given.rounds)]


def load(port: int, seconds: float, lua: Path) -> float:
    """Requests/s."""
    command = [
        "taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "-s", str(lua),
        f"http://127.0.0.1:{port}",
    ]  # fmt: skip
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in said, said
    assert "Socket errors" not in said, said
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert rate is not None, said
    return float(rate[1])


def compare(port: int, body: str, matcher: Matcher) -> None:
    """The service says what this process says."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", f"/v1/jobs/{JOB}/match", body.encode(), {"Content-Type": "application/json"})
        content = json.loads(connection.getresponse().read())
    expected = [{"matches": json.loads(matcher.find_json(text))} for text in json.loads(body)["texts"]]
    assert content["results"] == expected, "the service answers otherwise than the library"


def answers(matcher: Matcher, apart: Matcher, locales: Sequence[Locale], most: int) -> dict[str, Answers]:
    """Whether terms are found where they should be, by kind of script.

    matcher: of overlapping matches. apart: of others, in which a longer match may cover that of a term.
    """
    found: dict[str, Answers] = defaultdict(Answers)
    for locale in locales:
        concepts, seen = locale.concepts, found[kind_of(locale.script)]
        seen.locales += 1
        for term in locale.sample(most):
            seen.terms += 1
            for case in carriers.cases(term, locale.script):
                seen.spans += case.found
                seen.inside += not case.found
                wrong = carriers.wrong(matcher.find, case, concepts[term])
                seen.wrong += [f"{locale.tag}: {wrong}"] if wrong else []
                seen.covered += case.found and not _bears(apart, case)
    return found


def _bears(apart: Matcher, case: carriers.Case) -> bool:
    """Whether the span is found among those that do not overlap."""
    return any((match.start, match.end) == (case.start, case.end) for match in apart.find(case.text))


def measure(folder: Path, given: argparse.Namespace) -> Results:
    """Does all of it."""
    locales = read(given.cldr, folder)
    asked = texts(locales, EACH)
    say(f"Importing and publishing the names of {sum(len(locale.names) for locale in locales):,} symbols and locales …")
    job, data = make(folder, locales)
    subprocess.run(
        [sys.executable, "-m", "batchinfer", "--home", str(data.root), "publish", str(job.folder)],
        cwd=builds.ROOT, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    version = folders.folder_of(data, pointers.served(data).version)
    say("Building matchers …")
    whole = MATCH | {"min_length": 1}
    built = {
        "real": builds.alone("terms", *candidate(version, folder / "real", MATCH)),
        "million": builds.alone("terms", *candidate(version, folder / "million", MATCH, PAIRED)),
        "overlapping": builds.alone("terms", *candidate(version, folder / "overlapping", whole | {"overlaps": True})),
        "apart": builds.alone("terms", *candidate(version, folder / "apart", whole)),
    }
    say("Looking for terms in each locale …")
    right = answers(
        Matcher(folder / "overlapping" / MATCHER), Matcher(folder / "apart" / MATCHER), locales, given.terms
    )
    forms = forms_of(locales)
    (folder / "forms.json").write_text(json.dumps(forms), encoding="utf-8")
    (folder / "texts.json").write_text(json.dumps([text.text for text in asked]), encoding="utf-8")
    fold = Folding()
    (folder / "marked.json").write_text(json.dumps([fold(text.text).marked for text in asked]), encoding="utf-8")
    libraries = {}
    for name in builds.LIBRARIES:
        if importlib.util.find_spec(name) is None:
            say(f"The Python package {name} is not installed: it is left out.")
            continue
        libraries[name] = builds.alone(name, folder / "forms.json", folder / "marked.json")
    start = builds.alone("start", version, folder / "texts.json")
    matcher = Matcher(version / MATCHER)
    say(f"{given.rounds} rounds over {len(asked):,} texts in this process …")
    first, times = in_process(matcher, forms, asked, given.rounds)
    ways = {"all, for the first time": [first]} | otherwise(matcher, asked, given.rounds)
    say("Asking the service …")
    port = free_port()
    command = service(data.root, port, "--workers", "1", "--no-misses")
    with running(command, SERVER_CORE, {}, f"http://127.0.0.1:{port}/readyz") as parent:
        before = private_memory(parent)
        rates = by_http(port, asked, given, folder, matcher)
        memory = before, private_memory(parent)
    counted = [(text, sum(len(match.names) for match in matcher.find(text.text))) for text in asked]
    return Results(locales, counted, built, libraries, times, ways, rates, memory, start, right)


def forms_of(locales: Sequence[Locale]) -> list[str]:
    """The normal forms of all terms that the job's matcher holds."""
    fold = Folding()
    forms = {fold.term(term) for locale in locales for term in locale.concepts}
    return sorted(form for form in forms if len(form) - form.count(EDGE) > 1)


def main() -> None:
    """Prints the tables; exits with 1 if an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cldr", type=Path, help="cldr-annotations-full, as .tgz or unpacked")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of load, a round")
    parser.add_argument("--terms", type=int, default=200, help="of each locale, looked for")
    given = parser.parse_args()
    need_wrk()
    with tempfile.TemporaryDirectory(prefix="batchinfer-bench-") as name:
        found = measure(Path(name), given)
    report(found)
    sys.exit(any(seen.wrong for seen in found.answers.values()))


if __name__ == "__main__":
    main()
