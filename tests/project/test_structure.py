"""The shape of the code: small functions and files, names with one meaning, scratch tables with one owner, few arrows.

import-linter holds the floors (`make lint`); this holds what it cannot.
"""

from __future__ import annotations

import ast
import functools
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2] / "batchinfer"
FILES = {path.relative_to(ROOT): path for path in sorted(ROOT.rglob("*.py"))}
LONGEST_FUNCTION, MEDIAN_FUNCTION, LONGEST_FILE = 60, 8, 350
MOST_ENTRIES, MOST_ARROWS = 20, 60  # of the packages that lists, runs and look-ups need
MOST_ARROWS_OF_ALL = 93
GROUND = ("core", "errors")  # everything stands on them
OPTIONAL = {"evaluate", "schedule", "student", "training", "alerts"}  # layers that a run does without


@functools.cache  # two seconds' work, not for each process that collects tests
def trees() -> dict[Path, ast.Module]:
    """The files, parsed."""
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def functions() -> Iterator[tuple[str, int]]:
    """Each function and how many lines it has."""
    for name, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{name}:{node.name}", node.end_lineno - node.lineno + 1


def package(module: Path) -> str:
    """The package, or the file at the top, that a module belongs to."""
    return module.parts[0].removesuffix(".py")


def imported(tree: ast.Module) -> Iterator[str]:
    """The modules that a module imports; of `from batchinfer import x` the package x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "batchinfer":
            yield from (f"batchinfer.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def texts(tree: ast.Module) -> Iterator[str]:
    """All texts in a module but docstrings, f-strings with gaps where values go."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "§" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_functions_and_files_are_small() -> None:
    """No function has sixty lines, half of them have eight at most, and no file has more than 350."""
    found = dict(functions())
    assert {name: lines for name, lines in found.items() if lines >= LONGEST_FUNCTION} == {}
    assert statistics.median(found.values()) <= MEDIAN_FUNCTION
    lengths = {str(name): len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES.items()}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_comments_stand_before_what_they_explain() -> None:
    """None stands behind a bracket that ends a statement of several lines, to where the formatter moves it off its words."""
    behind = re.compile(r"^ *[\])}]+[^\w#\"'\n]*(as \w+:)?  # (?!fmt|noqa)", re.MULTILINE)
    assert [str(name) for name, path in FILES.items() if behind.search(path.read_text(encoding="utf-8"))] == []


def test_only_locks_waits_for_locks() -> None:
    """Which says for whom within two seconds, and ends: whoever else takes one takes it at once or not at all."""
    taken = [
        (str(name), ast.unparse(node))
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("flock", "lockf"))
    ]
    assert taken
    assert [each for each in taken if not ("LOCK_NB" in each[1] or "LOCK_UN" in each[1])] == []


def test_no_sentence_holds_an_error_as_python_writes_it() -> None:
    """What went wrong is told in words, as `core.files.why_damaged` has them: no gap of a text holds the repr of an error."""
    sentences = {
        str(name) for name, path in FILES.items() if re.search(r"\{exc(eption)?!r\}", path.read_text(encoding="utf-8"))
    }
    assert sentences == set()


def test_the_top_has_few_entries() -> None:
    """Packages and modules directly in batchinfer/, those left out that a run does without."""
    there = {package(name) for name in FILES}
    assert len(there - OPTIONAL) <= MOST_ENTRIES
    for name in there - {"__init__", "__main__", "errors"}:
        assert ast.get_docstring(trees()[Path(name) / "__init__.py"]), f"{name} says in its docstring what it is for"


def test_there_are_few_arrows_between_packages() -> None:
    """Which package imports which, the ground left out; fewer yet without the packages that a run does without."""
    arrows = {
        (package(name), node.module.split(".")[1])
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module
        and node.module.startswith("batchinfer.")
        and len(name.parts) > 1
    }
    between = {arrow for arrow in arrows if arrow[0] != arrow[1] and not {*arrow} & {*GROUND}}
    assert len(between) <= MOST_ARROWS_OF_ALL
    assert len({arrow for arrow in between if not {*arrow} & OPTIONAL}) <= MOST_ARROWS


def named(node: ast.stmt) -> list[str]:
    """The names of the class, or of the alias of a type, that a statement makes; of private ones without what makes them private."""
    if isinstance(node, ast.ClassDef):
        return [node.name.lstrip("_")]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    names = [target.id.lstrip("_") for target in targets if isinstance(target, ast.Name)]
    return [name for name in names if re.fullmatch("[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*", name)]


def test_a_class_name_means_one_thing() -> None:
    """No two classes or aliases of types of the package share a name, private ones included."""
    places = defaultdict(list)
    for name, tree in trees().items():
        for node in tree.body:
            for each in named(node):
                places[each].append(str(name))
    assert {"Pupil", "Floats", "JudgedRows"} <= places.keys()  # a class, an alias, and a private class
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_a_function_name_means_one_thing() -> None:
    """No two modules have a public function of one name, but for the package's own, which stand for what they call."""
    places = defaultdict(list)
    for name, tree in trees().items():
        for node in tree.body if name != Path("__init__.py") else ():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
                places[node.name].append(str(name))
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert twice.keys() <= {"main"}, twice  # where a process begins


def owners_of_tables() -> dict[str, set[str]]:
    """The modules that make or declare each table or view."""
    owners = defaultdict(set)
    for name, tree in trees().items():
        declared = re.findall(r"^\| ([a-z_]+) +\| ", ast.get_docstring(tree) or "", re.MULTILINE)
        made = [
            re.findall(r"CREATE (?:OR REPLACE )?(?:TABLE|VIEW) (?:IF NOT EXISTS )?([a-z_]+)\b", text)
            for text in texts(tree)
        ]
        for table in [*declared, *(table for tables in made for table in tables)]:
            owners[table].add(str(name))
    return owners


def lasting_tables(owners: dict[str, set[str]]) -> set[str]:
    """Those of the cache, and what looks like the name of one."""
    return {"migrations", "table"} | {table for table, where in owners.items() if "cache/schema.py" in where}


def test_the_architecture_page_names_the_scratch_tables() -> None:
    """It has each of them in its list of owners, and no other."""
    page = (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = page.partition("| owner | tables |")[2].partition("\n\n")[0]
    named = {table for row in listed.splitlines()[2:] for table in re.findall(r"`([a-z_]+)`", row.split("|")[2])}
    owners = owners_of_tables()
    assert named == owners.keys() - lasting_tables(owners)


def test_a_scratch_table_is_read_by_its_owner_alone() -> None:
    """A table or view that one module makes is named in the SQL of no other; what others need of it is a method."""
    owners = owners_of_tables()
    assert {"list", "bad_rows", "bad_keys", "todo", "entries", "rejected"} <= owners.keys()
    lasting = lasting_tables(owners)
    strangers = [
        f"{name} names {table}, a table of {', '.join(sorted(owners[table]))}: {text[:80]!r}"
        for name, tree in trees().items()
        for text in texts(tree)
        for table in set(re.findall(r"\b(?:FROM|JOIN|INTO|TABLE|UPDATE|DESCRIBE) ([a-z_]+)\b(?![.(])", text))
        & owners.keys()
        if table not in lasting and str(name) not in owners[table]
    ]
    assert strangers == []
