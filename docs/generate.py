"""Writes the generated pages of docs/ from the code, and from the texts in texts.yaml.

job-file.md and job.schema.json come from the job file's models, cli.md from the commands, the table and the picture of
packages in architecture.md from their docstrings and from the floors in pyproject.toml, and the tables in python.md from the
public functions and the docstrings of what they return.

`make docs` runs it; tests/project/test_docs.py fails when a page is stale.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import yaml

import batchinfer
from batchinfer.cli.main import COMMANDS, cli
from batchinfer.job.spec import JobSpec
from batchinfer.pipeline.report import RunReport
from batchinfer.planning import fingerprint
from batchinfer.planning.estimate import PlanReport
from batchinfer.publish.diff import Difference
from batchinfer.publish.refused import CandidateReport
from batchinfer.versions.pointers import PinReport, VersionStatus

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "batchinfer"
WIDTH = 88
MADE = "<!-- Made by docs/generate.py: edit that, or the code it reads, then run make docs. -->\n"
FLOORS, REPORTS, PUBLIC = (
    re.compile(rf"(?<=<!-- {name}: made by docs/generate.py -->\n).*?(?=<!-- end of {name} -->)", re.DOTALL)
    for name in ("floors", "reports", "names")
)
RECORDS = (PlanReport, RunReport, CandidateReport, VersionStatus, PinReport, Difference)
LISTED = ("#/$defs/AlertSpec",)  # sections of which a job file has a list
TEXTS: dict[str, Any] = yaml.safe_load((HERE / "texts.yaml").read_text(encoding="utf-8"))


def pages() -> dict[Path, str]:
    """What each generated file should hold."""
    return {
        HERE / "job.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
        HERE / "job-file.md": job_file_page(),
        HERE / "cli.md": cli_page(),
        HERE / "architecture.md": architecture_page(),
        HERE / "python.md": python_page(),
    }


def schema() -> dict[str, Any]:
    """The JSON Schema of a job file, as editors want it: described fields, defaults as they are written in YAML."""
    whole = JobSpec.model_json_schema(by_alias=True)
    sections = [(f"{name}.", whole["$defs"][ref]) for name, refs in section_refs(whole).items() for ref in refs]
    for prefix, section in [("", whole), *sections]:
        for name, field in section["properties"].items():
            field.pop("title", None)
            if note := TEXTS["notes"].get(prefix + name):
                field.setdefault("description", note)
            if isinstance(field.get("default"), dict):
                del field["default"]
            if iso := re.fullmatch(r"PT?(\d+)([DHMS])", str(field.get("default"))):
                field["default"] = iso[1] + iso[2].lower()
    for inner in whole["$defs"].values():
        inner.pop("title", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole, "title": "batchinfer job file"}


def section_refs(whole: dict[str, Any]) -> dict[str, list[str]]:
    """The name of each section and of its definition: one for each of its kinds, where it has several."""
    found = {}
    for name, field in whole["properties"].items():
        kinds = field["oneOf"] if "discriminator" in field else [field, *field.get("anyOf", [])]
        refs = [kind["$ref"] for kind in kinds if "$ref" in kind]
        listed = field.get("items", {}).get("$ref")
        if listed in LISTED:
            refs = [listed]
        if refs:
            found[name] = [ref.removeprefix("#/$defs/") for ref in (refs if "discriminator" in field else refs[:1])]
    return found


def job_file_page() -> str:
    """docs/job-file.md."""
    whole = schema()
    parts = [
        TEXTS["job_file_head"].format(example=TEXTS["job_file"]),
        MADE,
        "## All fields\n",
        *table("", whole, whole),
    ]
    for name, refs in section_refs(whole).items():
        parts.append(f"\n## {name}\n")
        for ref in refs:
            section = whole["$defs"][ref]
            if len(refs) > 1:
                gap = "" if ref == refs[0] else "\n"
                parts.append(f"{gap}### {name}, kind: {section['properties']['kind']['const']}\n")
            parts += [f"{section['description']}\n", *table(f"{name}.", section, whole)]
            for inner, [inner_ref] in section_refs(section).items():
                below = whole["$defs"][inner_ref]
                parts += [f"\n### {name}.{inner}\n", f"{below['description']}\n"]
                parts += table(f"{name}.{inner}.", below, whole)
        if more := TEXTS["sections"].get(name):
            options = ", ".join(f"`{option}`" for option in sorted(fingerprint.OPTIONS_NOT_IN_KEY))
            parts.append("\n" + more.replace("{options}", options))
    return "\n".join(parts).rstrip("\n") + "\n"


def table(prefix: str, section: dict[str, Any], whole: dict[str, Any]) -> list[str]:
    """The fields of a section as lines of Markdown."""
    refs = section_refs(whole)
    lines = ["| field | type | default | in key | what it is |", "| --- | --- | --- | --- | --- |"]
    for name, field in section["properties"].items():
        is_section = not prefix and name in refs
        kind = section_type(name, field) if is_section else type_of(field)
        if name in section.get("required", []):
            default = "*required*"
        elif is_section or field.get("default") in (None, ""):
            default = ""
        else:
            default = f"`{field['default'] if isinstance(field['default'], str) else json.dumps(field['default'])}`"
        lines.append(f"| `{name}` | {kind} | {default} | {in_key(prefix, name)} | {field['description']} |")
    return lines


def section_type(name: str, field: dict[str, Any]) -> str:
    """A link to a section, or that there is a list of them, after what may stand in its place."""
    if field.get("items", {}).get("$ref") in LISTED:
        return f"list of: [section](#{name})"
    others = [kind for kind in field.get("anyOf", []) if "$ref" not in kind and kind.get("type") != "null"]
    return " or ".join([*map(type_of, others), f"[section](#{name})"])


def in_key(prefix: str, name: str) -> str:
    """Whether the field is part of the cache's key."""
    section = prefix.partition(".")[0] or name
    if section in fingerprint.NOT_IN_KEY or (section == "output" and name in fingerprint.OUTPUT_NOT_IN_KEY):
        return ""
    if section == "model" and (name == "cascade" or prefix == "model.cascade."):
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
            "DedupeStep": "`{dedupe: folded}`",
            "Example": "example",
            "MissesSpec": "`{at_least: 3}`",
            "GoldenSpec": "[section](#gategolden)",
            "EvalGoldenSpec": "[section](#evalgolden)",
            "CascadeSpec": "[section](#modelcascade)",
            "OneModelSpec": "[model](#model)",
            "AuditLimits": "[section](#auditlimits)",
            "MailSpec": "[section](#alertsmail)",
            "LabelsSpec": "`{path: labels.parquet}`, `{job: large}`",
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
    if "exclusiveMaximum" in field:
        return f" above {field['exclusiveMinimum']} and below {field['exclusiveMaximum']}"
    if "exclusiveMinimum" in field:
        return f" above {field['exclusiveMinimum']}" + ("" if most is None else f", at most {most}")
    if least is not None and most is not None:
        return f", {least} to {most}"
    return "" if least is None else f", at least {least}"


def cli_page() -> str:
    """docs/cli.md."""
    parts = [TEXTS["cli_head"], MADE, *help_block(cli, "batchinfer")]
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        if command is None or name not in TEXTS["commands"]:
            raise ValueError(f"The command {name} has no example: add one to docs/texts.yaml.")
        example, text = TEXTS["commands"][name].values()
        parts += [f"\n## batchinfer {name}\n", *help_block(command, f"batchinfer {name}"), f"\n{text}\n"]
        parts.append(f"```\n{example}\n```")
        if isinstance(command, click.Group):
            for sub, inner in command.commands.items():
                parts += ["", *help_block(inner, f"batchinfer {name} {sub}")]
    return "\n".join(parts) + "\n"


def help_block(command: click.Command, name: str) -> list[str]:
    """What --help prints, at a fixed width."""
    context = click.Context(
        command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH, **cli.context_settings
    )
    return ["```text", command.get_help(context), "```"]


def architecture_page() -> str:
    """docs/architecture.md: the page as it is, with the packages between its marks."""
    page = (HERE / "architecture.md").read_text(encoding="utf-8")
    rooms = floors()
    return FLOORS.sub(lambda _: f"\n{picture(rooms)}\n\n{package_table(rooms)}\n\n", page)


def floors() -> list[list[str]]:
    """The packages on each floor that import-linter checks, from the top; those to come are left out."""
    settings = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    layers = next(
        contract["layers"] for contract in settings["tool"]["importlinter"]["contracts"] if "layers" in contract
    )
    found = [[name.strip() for name in re.split(r"[|:]", layer) if "(" not in name] for layer in layers]
    return [names for names in found if names]


def picture(rooms: list[list[str]]) -> str:
    """The floors as a drawing."""
    lines = ["   ".join(names) for names in rooms]
    width = max(map(len, lines))
    drawn = [f"│ {line:<{width}} │" for line in lines]
    rule = "─" * (width + 2)
    return "\n".join(["```text", f"┌{rule}┐", f"\n├{rule}┤\n".join(drawn), f"└{rule}┘", "```"])


def package_table(rooms: list[list[str]]) -> str:
    """What each package is for, by the first line of its docstring."""
    lines = ["| package | what it is for |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| `{name}` | {first_line(name)} |" for names in rooms for name in names)])


def first_line(name: str) -> str:
    """The first line of a package's docstring, or of a module's."""
    file = PACKAGE / name / "__init__.py"
    source = (file if file.exists() else PACKAGE / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def python_page() -> str:
    """docs/python.md: the page as it is, with the fields of reports and the public names between their marks."""
    page = (HERE / "python.md").read_text(encoding="utf-8")
    page = REPORTS.sub(lambda _: f"\n{record_table()}\n\n", page)
    return PUBLIC.sub(lambda _: f"\n{name_table()}\n\n", page)


def record_table() -> str:
    """A line for each field of what public functions return, by the docstring of the record."""
    lines = ["| report | field | what it is |", "| --- | --- | --- |"]
    for record in RECORDS:
        text = inspect.getdoc(record) or ""
        said = dict(re.findall(r"^(\w+): (.*(?:\n +.*)*)", text, re.MULTILINE))
        if missing := {field.name for field in dataclasses.fields(record)} - said.keys():
            raise ValueError(f"The docstring of {record.__name__} has no line for {', '.join(missing)}.")
        for place, (name, what) in enumerate(said.items()):
            lines.append(f"|{f' `{record.__name__}`' if place == 0 else ''} | `{name}` | {' '.join(what.split())} |")
    return "\n".join(lines)


def name_table() -> str:
    """A line for each public name: how it is called, and what its docstring says first."""
    lines = ["| name | what it is |", "| --- | --- |"]
    for name in sorted(set(batchinfer.__all__) - {"__version__"}):
        found = getattr(batchinfer, name)
        call = f"{name}({parameters(found)})" if callable(found) else name
        gives = inspect.get_annotations(found).get("return") if inspect.isfunction(found) else None
        said = " ".join((inspect.getdoc(found) or "").partition("\n\n")[0].split())
        lines.append(f"| `{call}` | {said}{f' Gives `{gives}`.' if gives else ''} |".replace(" | None", " or None"))
    return "\n".join(lines)


def parameters(called: Callable[..., Any]) -> str:
    """How something is called: names, and the defaults of those that may be left out."""
    words, seen_keyword = list[str](), False
    for name, parameter in inspect.signature(called).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and not seen_keyword:
            words, seen_keyword = [*words, "*"], True
        default = "" if parameter.default is parameter.empty else f"={shown(parameter.default)}"
        words.append(f"{name}{default}")
    return ", ".join(words)


def shown(default: Any) -> str:
    """A default as it is written; the environment by its name, since it is this machine's."""
    return "os.environ" if default is os.environ else repr(default)


def main() -> None:
    """Writes every page that is not as it should be."""
    for path, content in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")
            print(f"Wrote {path.relative_to(HERE.parent)}.")


if __name__ == "__main__":
    main()
