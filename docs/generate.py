"""Writes the generated pages: docs/job-file.md and docs/job.schema.json from the models, docs/cli.md from the commands.

`make docs` runs it; tests/project/test_docs.py fails when a page is stale.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from batchinfer.cli.main import COMMANDS, cli
from batchinfer.job.spec import JobSpec
from batchinfer.planning import fingerprint

HERE = Path(__file__).parent
WIDTH = 88
MADE = "<!-- Made by docs/generate.py: edit that, or the code it reads, then run make docs. -->\n"

# What the models leave unsaid. A field with neither a description there nor a note here fails a test.
NOTES = {
    "input": "Where the queries come from.",
    "model": "Which model answers. Goes with prompt.",
    "engine": "How the model is run.",
    "sampling": "How tokens are drawn.",
    "output": "What an answer must look like.",
    "cache": "How long an answer may be used.",
    "gate": "What a version must pass before it is served.",
    "match": "Which parts of a version are terms to be found in live text.",
    "serve": "How a lookup service answers.",
    "schedule": "When the job is to run.",
    "engine.kind": "Which engine runs the model. There is one.",
    "sampling.temperature": "0 takes the likeliest token each time.",
    "sampling.max_tokens": "Longest answer. One that is cut off here is a failure, not a prediction.",
    "sampling.seed": "Of the random numbers, where temperature is above 0.",
    "sampling.stop": "Texts at which an answer ends.",
    "sampling.top_p": "Draw only from the likeliest tokens that together have this probability.",
    "sampling.top_k": "Draw only from so many of the likeliest tokens; 0 for all.",
    "sampling.min_p": "Draw only from tokens with at least this share of the likeliest one's probability.",
    "sampling.presence_penalty": "Above 0: makes tokens less likely that were used before.",
    "sampling.frequency_penalty": "The same, more so the more often they were used.",
    "sampling.repetition_penalty": "Above 1: makes tokens less likely that are in the prompt or the answer.",
    "output.type": "The kind of answer.",
    "schedule.cron": "Five cron fields.",
    "schedule.timezone": "In which they are meant.",
}

# Checked and kept, so that job files can have them already; no command uses them yet.
UNUSED = frozenset({"schedule"})

MORE = {
    "input": """\
Two rows with one lookup key must ask the same: otherwise both are bad rows. A row is also bad if a column of its key is
null or empty, if a column that the template uses is (unless `optional` names it), if a value is not of the column's
type, or if a text is not valid UTF-8. Bad rows are listed by `batchinfer failures`; they never end a run.

`include_misses` is for jobs whose template and `where` use only columns of `key` (the template also those in
`optional`, which are null then): clients ask with no others. See [misses.md](misses.md).

With `job`, the list is the served version of another job: see [chain.md](chain.md).

A path may not leave the job's folder, nor by a link, unless it lies below one of the folders in the environment
variable `BATCHINFER_INPUT_ROOTS` (separated by `:`). `${VARIABLE}` in a path is filled in.
""",
    "prompt": """\
The template is [Jinja2](https://jinja.palletsprojects.com/templates/), in a sandbox. A name that is no column is an
error. Columns that it does not use are not in the cache's key: they can change without a new answer.

With `format: chat` the examples become turns of user and assistant. With `format: completion` each becomes a line,
template and output with a space between them, and the row's own line is left open.

An example is a mapping of `input` (a value for each column of the template) and `output` (the answer, as text). A
Parquet file of examples has these two columns, the first of them a struct.
""",
    "model": """\
`id` is a hub id such as `Qwen/Qwen3-8B`, a local folder (beginning with `/`, `.` or `~`, or below the job's folder), or
`bundled/smollm2-135m-instruct`. What it means is looked up once and recorded in the data folder: a hub revision as its
commit, a folder as a digest of its files. `batchinfer run --update-model` looks again.

Options that only change speed or memory are not in the cache's key: {options}.
""",
    "engine": "All of it may change at any time: no answer is asked for anew.\n",
    "sampling": "Of no effect with `output.type: choice`, where nothing is drawn: see [scores.md](scores.md).\n",
    "output": """\
`choices` are scored, not written: see [scores.md](scores.md). Their first tokens must differ.

Steps, done in the order in which they are listed, on the text or on all texts within a JSON value:

| step | does |
| --- | --- |
| `strip` | removes white space at both ends |
| `casefold` | makes letters comparable, as lower case |
| `squeeze` | makes every run of white space one space |
| `first_line` | keeps the first line |
| `{split: ","}` | cuts a text into a list; the prediction is a list then |
| `dedupe` | removes repeated items of a list |
| `drop_empty` | removes empty items of a list |
| `{drop: "I cannot .*"}` | removes items that the pattern matches as a whole, such as refusals |
| `{drop_echo: vaccine}` | removes items that only repeat the row's column, in whatever case, width or spacing at the ends |
| `{drop_wrong_script: language}` | removes items that have letters, but none of the script of the language that the row's column names |

A text that stands alone, outside a list, becomes empty instead of being removed. An answer of which the steps leave
nothing is a failure, `empty`; so is one whose lists are all empty where the schema says `minItems`.

`drop_echo` and `drop_wrong_script` look at columns of the row; the template must use them, since rows with one prompt
share one answer. `drop_wrong_script` reads BCP 47 tags and takes the script that the language is mostly written in:
Serbian is Cyrillic under `sr` and Latin under `sr-Latn`. Where the tag is none, or names no language, nothing is
removed. It needs `pip install 'batchinfer-cache[match]'`.

How an answer is read (`steps`, `min_mass`) is not in the cache's key: after a change the stored texts are read again,
without the model.
""",
    "gate": """\
`shrink`, `changed` and `carried` compare with the version that is served now: the pinned one, or else the current one.
A candidate that fails is kept in the data
folder under `rejected/`, and what was served before still is: see [versions.md](versions.md).

`reviewed` wants people to have accepted what the model made, all of it or what is new or changed: see
[review.md](review.md).

A golden file has one row a key. Its answers are read as imports are: where predictions are JSON, a text is JSON too and
has quotes of its own. With `compare: equal` texts must be equal, or JSON values (`1` is `1.0`; the order of an object's
fields does not matter). With `compare: contains`

- a text holds a part of it,
- a list holds its items, and a list of some of its items,
- an object holds what any of its values holds, and an object of which each field is held by its own of that name.

A golden key without a prediction counts as wrong. A golden file that cannot be used is told before the model is loaded.
""",
    "cache": "An answer that is too old is made again by the next run.\n",
}

EXAMPLE = """\
# yaml-language-server: $schema=../../docs/job.schema.json
name: vaccine_names
description: What people call each COVID vaccine, in every language.
input:
  path: queries.parquet
  key: [vaccine, language]
  normalize: [nfkc, casefold, trim]
  where: {reviewed: true}
prompt:
  system: You list the names that people type into a search engine.
  template: "Names for {{ vaccine }} in {{ language }}:"
  examples:
    - {input: {vaccine: Sputnik V, language: German}, output: '{"names": ["Sputnik V", "Sputnik-Impfstoff"]}'}
  shots: all
model:
  id: Qwen/Qwen3-8B
  options: {max_model_len: 2048}
  dtype: bfloat16
sampling: {temperature: 0, max_tokens: 256}
output:
  type: json
  schema:
    type: object
    properties: {names: {type: array, items: {type: string, maxLength: 60}, maxItems: 6}}
    required: [names]
  steps: [strip, dedupe]
on_failure: keep
cache: {max_age: 26w}
gate:
  coverage: 0.95
  shrink: 0.10
  golden: {path: golden.parquet, compare: contains, accuracy: 0.90}
"""

COMMAND_EXAMPLES = {
    "init": ("batchinfer init towns --input towns.parquet", "Makes `jobs/towns` from a list of your own."),
    "try": (
        'batchinfer try sentiment sentence="Not my cup of tea."',
        "Shows the whole prompt and the scores of both choices.",
    ),
    "doctor": ("batchinfer doctor sentiment", "Looks at the machine, the data folder and one job."),
    "plan": ("batchinfer plan sentiment", "Says what a run would ask the model, and what the cache has."),
    "run": ("batchinfer run sentiment --max-hours 8", "Stops after a night; the same command goes on from there."),
    "publish": (
        'batchinfer publish sentiment --candidate r7 --force --why "Read by two of us; the list did shrink."',
        "Publishes what the gate refused as it lies in `rejected/r7`; without options: what the cache has, if it passes.",
    ),
    "review": (
        "batchinfer review sentiment --out review.csv --where source=model",
        "Writes what nobody has judged yet, worst first; see [review.md](review.md).",
    ),
    "import": (
        'batchinfer import sentiment corrections.parquet --author "A. Reader"',
        "Takes corrections in; `batchinfer publish` serves them.",
    ),
    "export": ("batchinfer export sentiment answers.parquet", "Writes what the cache has for the job's list."),
    "failures": ("batchinfer failures sentiment --limit 50", "Shows what has no prediction, and why."),
    "runs": ("batchinfer runs sentiment", "Shows what each run did, and at what rate."),
    "versions": ("batchinfer versions sentiment", "Shows what was published, and what is served."),
    "pin": ("batchinfer pin sentiment 3", "Serves version 3 from now on, also after later runs."),
    "unpin": ("batchinfer unpin sentiment", "Serves the current version again."),
    "rollback": ("batchinfer rollback sentiment", "Serves the version before, at once; `unpin` ends it."),
    "lookup": (
        'batchinfer lookup sentiment sentence="A masterpiece four years in the making."',
        "Prints one answer as JSON.",
    ),
    "match": (
        'batchinfer match vaccine_synonyms "Wer bekommt Sputnik V?" --language de',
        "Prints what the text mentions; see [matching](match.md).",
    ),
    "serve": (
        "batchinfer serve --host 0.0.0.0 --port 8080 --workers 4",
        "Answers look-ups over HTTP for every job of the data folder; see [the service](serve.md).",
    ),
    "keys": (
        "batchinfer keys add search-frontend --job sentiment",
        "Makes a key that may ask for one job; `keys list` names the keys, `keys revoke ID` ends one.",
    ),
    "diff": (
        "batchinfer diff sentiment current r7 --out changes.parquet",
        "Compares what is served with what the gate refused, and writes every difference; see [upkeep.md](upkeep.md).",
    ),
    "copy": (
        "batchinfer copy sentiment /mnt/replica",
        "Makes what is served here current there; see [upkeep.md](upkeep.md).",
    ),
    "forget": (
        'batchinfer forget sentiment sentence="Call me on 0151 55 01 23." --yes',
        "Removes one entry for good; see [upkeep.md](upkeep.md) for what it reaches.",
    ),
}

CLI_HEAD = """\
# The command line

`JOB` is a job's name under `./jobs`, or a path to its folder or `job.yaml`. `--home` goes before the command:
`batchinfer --home FOLDER run JOB`. Without it the data folder is `$BATCHINFER_HOME`, or else the user's data folder.

Every command that prints a result takes `--json` and then prints one JSON value on stdout. Progress and errors go to
stderr, an error as one sentence.

| exit code | means |
| --- | --- |
| 0 | done |
| 1 | a failed run, or a miss |
| 2 | bad usage, or a job file, list or model that cannot be used |
| 3 | the gate refused the new version; what was served still is |
| 4 | the run stopped before its end; the same command goes on from there |
| 5 | another process holds what this one needs |
| 130 | stopped by Ctrl-C; the same command goes on from there |

Fields of `--json` that stay (more may be added):

- `run`: `job`, `run_id`, `status`, `rows`, `bad`, `duplicates`, `unique`, `hits`, `generated`, `failures`, `left`,
  `carried`, `version` (null if nothing was published), `seconds`, `engine_load_seconds`, `rows_per_second`,
  `output_tokens_per_second`, `prefix_saving`
- `plan`: `job`, `rows`, `bad`, `duplicates`, `unique`, `hits`, `to_generate`, `prompt_tokens`, `prompt_tokens_exact`,
  `prefix_saving`, `estimate_seconds`
- `lookup`: `job`, `query`, `prediction`, `scores`, `score`, `source`, `model`, `generated_at`
- `match`: `matches`, a list of `concept`, `language`, `term`, `start`, `end`, `text`, `score`, `source`; and `version`
- `versions`: a list, newest first, of `version`, `created_at`, `rows`, `current`, `pinned`, `gate`
- `pin`, `unpin`, `rollback`: `job`, `version` (the one that is served now), `pinned` (null if none is)
- `runs`: a list, newest first, of what `run` printed
- `doctor`: a list of `what`, `detail`, `ok` and `fix` (null where there is nothing to do)
- `diff`: `from`, `to`, `added`, `removed`, `changed` (counts)
- `copy`: `job`, `version`, `destination`, `copied` (false if it was there already), `bytes`, `pinned` (what is served
  there instead, or null)
- `forget`: `job`, `generations`, `imports`, `failures`, `misses`, `versions_rebuilt`, `versions_removed`, `in_list`,
  `remarks`

`rows = bad + duplicates + unique`, and `unique = hits + generated + failures + left`.
"""

JOB_HEAD = """\
# The job file

A job is a folder with a file `job.yaml` and a list of queries. `batchinfer init` writes a file to begin with. Only
`name` and `input` are required; a job without `prompt` and `model` has only imported answers.

An unknown field is an error. All errors of a file are reported at once, each with its line. Texts need no quotes where
YAML does not ask for them: `Yes`, `No` and `on` are plain texts here.

Editors that speak the YAML language server complete the file and check it with [job.schema.json](job.schema.json) when
its first line names that file:

```yaml
{example}```

In the tables, *anew* says whether a change makes the model answer all rows again (the field is part of the cache's key;
see [cache.md](cache.md)). Durations are a number and a unit: `60s`, `15m`, `12h`, `7d`, `2w`.
"""


def pages() -> dict[Path, str]:
    """What each generated file should hold."""
    return {
        HERE / "job.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
        HERE / "job-file.md": job_file_page(),
        HERE / "cli.md": cli_page(),
    }


def schema() -> dict[str, Any]:
    """The JSON Schema of a job file, as editors want it: described fields, defaults as they are written in YAML."""
    whole = JobSpec.model_json_schema(by_alias=True)
    sections = {f"{name}.": whole["$defs"][ref] for name, ref in section_refs(whole).items()}
    for prefix, section in {"": whole, **sections}.items():
        for name, field in section["properties"].items():
            field.pop("title", None)
            if note := NOTES.get(prefix + name):
                field.setdefault("description", note)
            if prefix + name in UNUSED:
                field["description"] += " Checked and kept; not used yet."
            if isinstance(field.get("default"), dict):
                del field["default"]
            if iso := re.fullmatch(r"PT(\d+)([HMS])", str(field.get("default"))):
                field["default"] = iso[1] + iso[2].lower()
    for inner in whole["$defs"].values():
        inner.pop("title", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole, "title": "batchinfer job file"}


def section_refs(whole: dict[str, Any]) -> dict[str, str]:
    """The name of each section and of its definition."""
    found = {}
    for name, field in whole["properties"].items():
        kinds = [field, *field.get("anyOf", [])]
        ref = next((kind["$ref"] for kind in kinds if "$ref" in kind), None)
        if ref is not None:
            found[name] = ref.removeprefix("#/$defs/")
    return found


def job_file_page() -> str:
    """docs/job-file.md."""
    whole = schema()
    parts = [JOB_HEAD.format(example=EXAMPLE), MADE, "## All fields\n", *table("", whole, whole)]
    for name, ref in section_refs(whole).items():
        section = whole["$defs"][ref]
        parts += [f"\n## {name}\n", f"{section['description']}\n"]
        if name in UNUSED:
            parts.append("Checked and kept, so that a job file can have it already; no command uses it yet.\n")
        parts += table(f"{name}.", section, whole)
        for inner, inner_ref in section_refs(section).items():
            below = whole["$defs"][inner_ref]
            parts += [f"\n### {name}.{inner}\n", f"{below['description']}\n", *table(f"{name}.{inner}.", below, whole)]
        if name in MORE:
            options = ", ".join(f"`{option}`" for option in sorted(fingerprint.OPTIONS_NOT_IN_KEY))
            parts.append("\n" + MORE[name].replace("{options}", options))
    return "\n".join(parts).rstrip("\n") + "\n"


def table(prefix: str, section: dict[str, Any], whole: dict[str, Any]) -> list[str]:
    """The fields of a section as lines of Markdown."""
    refs = section_refs(whole)
    lines = ["| field | type | default | anew | what it is |", "| --- | --- | --- | --- | --- |"]
    for name, field in section["properties"].items():
        is_section = not prefix and name in refs
        kind = f"[section](#{name})" if is_section else type_of(field)
        if name in section.get("required", []):
            default = "*required*"
        elif is_section or field.get("default") in (None, ""):
            default = ""
        else:
            default = f"`{field['default'] if isinstance(field['default'], str) else json.dumps(field['default'])}`"
        lines.append(f"| `{name}` | {kind} | {default} | {anew(prefix, name)} | {field['description']} |")
    return lines


def anew(prefix: str, name: str) -> str:
    """Whether a change of the field is one of the cache's key."""
    section = prefix.partition(".")[0] or name
    if section in fingerprint.NOT_IN_KEY or (section == "output" and name in fingerprint.OUTPUT_NOT_IN_KEY):
        return ""
    return "yes"


def type_of(field: dict[str, Any]) -> str:  # noqa: PLR0911 - one return for each kind reads best
    """A JSON Schema type in words."""
    if kinds := field.get("anyOf") or field.get("oneOf"):
        return " or ".join(dict.fromkeys(type_of(kind) for kind in kinds if kind.get("type") != "null"))
    if "$ref" in field:
        return {
            "SplitStep": '`{split: ","}`',
            "DropStep": "`{drop: N/A}`",
            "DropEchoStep": "`{drop_echo: vaccine}`",
            "DropWrongScriptStep": "`{drop_wrong_script: language}`",
            "Example": "example",
            "MissesSpec": "`{at_least: 3}`",
            "GoldenSpec": "[section](#gategolden)",
        }[field["$ref"].rpartition("/")[2]]
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "array":
        return f"list of: {type_of(field['items'])}"
    if field["type"] == "string":
        return "duration" if field.get("pattern", "").startswith(r"^\d") else "text"
    if field["type"] in ("integer", "number"):
        return ("whole number" if field["type"] == "integer" else "number") + limits(field)
    return {"object": "mapping", "boolean": "`true`, `false`"}[field["type"]]


def limits(field: dict[str, Any]) -> str:
    """The range of a number in words."""
    least, most = field.get("minimum"), field.get("maximum")
    if "exclusiveMinimum" in field:
        return f" above {field['exclusiveMinimum']}" + ("" if most is None else f", at most {most}")
    if least is not None and most is not None:
        return f", {least} to {most}"
    return "" if least is None else f", at least {least}"


def cli_page() -> str:
    """docs/cli.md."""
    parts = [CLI_HEAD, MADE, *help_block(cli, "batchinfer")]
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        if command is None or name not in COMMAND_EXAMPLES:
            raise ValueError(f"The command {name} has no example: add one to COMMAND_EXAMPLES in docs/generate.py.")
        example, sentence = COMMAND_EXAMPLES[name]
        parts += [f"\n## batchinfer {name}\n", *help_block(command, f"batchinfer {name}"), f"\n{sentence}\n"]
        parts.append(f"```\n{example}\n```")
        if isinstance(command, click.Group):
            for sub, inner in command.commands.items():
                parts += ["", *help_block(inner, f"batchinfer {name} {sub}")]
    return "\n".join(parts) + "\n"


def help_block(command: click.Command, name: str) -> list[str]:
    """What --help prints, at a fixed width."""
    context = click.Context(command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
    return ["```text", command.get_help(context), "```"]


def main() -> None:
    """Writes every page that is not as it should be."""
    for path, content in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")
            print(f"Wrote {path.relative_to(HERE.parent)}.")


if __name__ == "__main__":
    main()
