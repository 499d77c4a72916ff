"""Units, lines, manifests and DAGs, each given to what reads it."""

from __future__ import annotations

import ast
import shlex
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from batchinfer.errors import UsageError
from batchinfer.schedule.export import KINDS, exported, write_files
from batchinfer.schedule.kubernetes import LONGEST, resource_name
from batchinfer.schedule.place import Target, plain_line
from batchinfer.schedule.systemd import calendar
from tests.schedule.made import scheduled

TARGET = Target("/opt/venv 1/bin/python", Path("/srv/100% data"), Path("/srv/it's $HOME {{ here }}"))
LINES = [
    "0 3 1-31 * 1",
    "0 3 * * 1",
    "*/15 2-4 * * *",
    "30 6 1,15 * MON-FRI",
    "0 0 29 2 *",
    "5 4 * * 7",
    "0 22 */2 * *",
    "0 1 1-7 * */2",
]
BOTH_DAYS = ["0 1 1-7 * */2", "0 0 */2 * 1"]
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
needs_model: dict[str, Any] = {
    "prompt": {"template": "{{ id }}"}, "model": {"id": "org/name"}, "engine": {"replicas": 2, "tensor_parallel": 4},
}  # fmt: skip


def chain() -> list[Any]:
    """A job, one that chains on it at the same times, and one with other times."""
    check = scheduled("names_check", "0 3 * * 1", "Europe/Berlin", input={"job": "names", "key": ["id"]})
    schedule = {"cron": "0 3 * * 1", "timezone": "Europe/Berlin", "max_hours": 6.5}
    return [check, scheduled("names", schedule=schedule), scheduled("other", "15 4 * * *", "UTC")]


@needs_systemd
@pytest.mark.parametrize("line", LINES)
def test_calendar_events_fire_as_cron_does(line: str) -> None:
    """The next times by systemd are those by cron, in a year without the nights on which clocks change."""
    entry = scheduled(cron=line, timezone="Asia/Tokyo")
    begin, count = datetime(2027, 5, 1, tzinfo=UTC), 12
    wanted = [time for time, _ in zip(entry.schedule.times_after(begin), range(count), strict=False)]
    found: set[datetime] = set()
    for event in calendar(entry):
        command = [
            "systemd-analyze",
            "calendar",
            f"--iterations={count}",
            f"--base-time={begin:%Y-%m-%d %H:%M:%S} UTC",
            event,
        ]
        said = subprocess.run(
            command, capture_output=True, text=True, check=True, env={"TZ": "UTC", "LC_ALL": "C"}
        ).stdout
        times = [part.split(": ", 1)[1] for part in said.splitlines() if "elapse:" in part or "Iter" in part]
        found |= {datetime.strptime(time.strip(), "%a %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC) for time in times}
    assert sorted(found)[: len(wanted)] == wanted


@needs_systemd
def test_units_are_taken_by_systemd(tmp_path: Path) -> None:
    """Also with paths that have blanks, percent and dollar signs and quotes; a chained job's service comes after the other."""
    (tmp_path / "python").symlink_to("/bin/true")
    target = Target(str(tmp_path / "python"), TARGET.home, TARGET.folder)
    paths = write_files(exported("systemd", chain(), target), tmp_path)
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *map(str, paths)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [line for line in said.stderr.splitlines() if str(tmp_path) in line or "batchinfer" in line] == []
    service = (tmp_path / "batchinfer-names_check.service").read_text()
    assert "After=batchinfer-names.service" in service
    assert "/srv/it's $HOME {{ here }}" in service
    assert 'Environment="BATCHINFER_HOME=/srv/100%% data"' in service
    assert '"--max-hours" "6.5"' in (tmp_path / "batchinfer-names.service").read_text()
    timer = (tmp_path / "batchinfer-names.timer").read_text()
    assert "OnCalendar=Mon *-*-* 03:00:00 Europe/Berlin" in timer
    assert "Persistent=true" in timer


def test_crontab_lines_run_the_command(tmp_path: Path) -> None:
    """After cron has undone its percent signs, the shell gives the program the words that were meant."""
    program = tmp_path / "it's 100% python"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$PWD" "$BATCHINFER_HOME" "$@"\n')
    program.chmod(0o755)
    folder = tmp_path / "a b%c"
    folder.mkdir()
    [file] = exported("cron", chain(), Target(str(program), tmp_path / "home $x", folder))
    lines = [line for line in file.content.splitlines() if not line.startswith("#")]
    assert [line for line in lines if line.startswith("CRON_TZ")] == ["CRON_TZ=Europe/Berlin", "CRON_TZ=UTC"]
    line = next(line for line in lines if line.endswith("--max-hours 6.5"))
    fields, command = line.split(" ", 5)[:5], line.split(" ", 5)[5]
    assert fields == ["0", "3", "*", "*", "1"]
    assert "%" not in command.replace("\\%", "")
    said = subprocess.run(["/bin/sh", "-c", command.replace("\\%", "%")], capture_output=True, text=True, check=True)
    path = "/srv/jobs/names/job.yaml"
    assert said.stdout.splitlines() == [
        str(folder), str(tmp_path / "home $x"), "-m", "batchinfer", "run", path, "--max-hours", "6.5",
    ]  # fmt: skip


@pytest.mark.parametrize("version", ["1.30", "1.34"])
def test_manifests_are_valid(version: str) -> None:
    """By the schemas of Kubernetes, strictly; a job that asks a model asks for its GPUs."""
    [file] = exported("kubernetes", [*chain(), scheduled("asks", **needs_model)], TARGET)
    manifests = list(yaml.safe_load_all(file.content))
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)
    check, names, _, asks = manifests
    assert check["spec"]["timeZone"] == "Europe/Berlin"
    assert check["spec"]["concurrencyPolicy"] == "Forbid"
    assert check["spec"]["startingDeadlineSeconds"] > 0
    [container] = names["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["run", "jobs/names", "--max-hours", "6.5"]
    assert container["resources"] == {}
    [container] = asks["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 8}}


def test_names_that_kubernetes_takes() -> None:
    """Job names with _, or too long, are changed, and no two become one."""
    jobs = ["a_b", "a-b", "a" * 64, "a" * 63 + "b", "a-"]
    names = [resource_name(job) for job in jobs]
    assert len(set(names)) == len(names)
    assert all(len(name) <= LONGEST and "_" not in name and not name.endswith("-") for name in names)


def test_a_dag_is_python(tmp_path: Path) -> None:
    """A job and what chains on it at the same times are one DAG, in order; others have their own."""
    [file] = exported("airflow", chain(), TARGET)
    tree = ast.parse(file.content)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "DAG"]
    dags = [ast.literal_eval(call.args[0]) for call in calls]
    assert dags == ["batchinfer_names", "batchinfer_other"]
    assert "tasks['names'] >> tasks['names_check']" in file.content
    commands = [
        ast.literal_eval(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "bash_command"
    ]
    assert all(command.startswith("{% raw %}cd ") and command.endswith("{% endraw %}") for command in commands)
    inner = commands[0].removeprefix("{% raw %}").removesuffix("{% endraw %}")
    assert shlex.split(inner)[:3] == ["cd", str(TARGET.folder), "&&"]


def test_a_dag_is_taken_by_airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Airflow 3 is installed, it loads the file."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    loader = pytest.importorskip("airflow.dag_processing.dagbag", reason="Airflow is not installed")
    write_files(exported("airflow", chain(), TARGET), tmp_path / "dags")
    bag = loader.DagBag(str(tmp_path / "dags"))
    assert bag.import_errors == {}
    assert set(bag.dags) == {"batchinfer_names", "batchinfer_other"}


@pytest.mark.parametrize("line", [each for each in LINES if each not in BOTH_DAYS])
def test_lines_for_others_are_plain_and_fire_alike(line: str) -> None:
    """Numbers alone, from 0 to 6 for days of the week, that fire when the job's own line does."""
    entry = scheduled(cron=line, timezone="Asia/Tokyo")
    plain = plain_line(entry, "cron")
    assert set(plain) <= set("0123456789,* ")
    assert "7" not in plain.split()[4]
    begin, count = datetime(2027, 5, 1, tzinfo=UTC), 60
    found = scheduled(cron=plain, timezone="Asia/Tokyo").schedule.times_after(begin)
    assert [next(found) for _ in range(count)] == [
        time for time, _ in zip(entry.schedule.times_after(begin), range(count), strict=False)
    ]


@pytest.mark.parametrize("kind", ["cron", "kubernetes", "airflow"])
@pytest.mark.parametrize("line", BOTH_DAYS)
def test_days_that_must_both_fit_are_refused(kind: str, line: str) -> None:
    """These would take either, and run on other days without a word."""
    with pytest.raises(UsageError, match=f"{kind} would take either"):
        exported(kind, [scheduled(cron=line)], TARGET)


def test_roots_go_with_the_job(tmp_path: Path) -> None:
    """A list outside the job's folder is found in runs of others, too."""
    entry = scheduled()
    entry = replace(entry, job=replace(entry.job, roots=(Path("/srv/lists"), Path("/srv/more"))))
    for kind in ("systemd", "cron", "airflow"):
        content = "".join(file.content for file in exported(kind, [entry], TARGET))
        assert "/srv/lists:/srv/more" in content
    exported("kubernetes", [entry], TARGET)  # whose list lies in its folder
    linked = scheduled(input={"path": "/srv/lists/q.parquet", "key": ["id"]})
    linked = replace(linked, job=replace(linked.job, roots=(Path("/srv/lists"),)))
    asked = scheduled(input={"sql": "FROM '/srv/lists/q.parquet'", "key": ["id"]})
    asked = replace(asked, job=replace(asked.job, roots=(Path("/srv/lists"),)))
    for outside, said in ((linked, "The list of shop, /srv/lists/q.parquet,"), (asked, "may read below /srv/lists,")):
        with pytest.raises(UsageError, match=f"{said}.* is not there in a container"):
            exported("kubernetes", [outside], TARGET)
    assert "KillMode=mixed" in exported("systemd", [entry], TARGET)[0].content


@pytest.mark.parametrize("line", ["0 0 L * *", "0 0 LW * *", "0 0 * * 1#2", "0 0 * * 5L"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_others_do_not_know_is_refused(kind: str, line: str) -> None:
    """The last day of a month and the like are for our own scheduler."""
    with pytest.raises(UsageError, match=rf"L, LW and # are not known to {kind}"):
        exported(kind, [scheduled(cron=line)], TARGET)


def test_a_line_break_in_a_path_cannot_be_in_a_crontab() -> None:
    """It would be two lines."""
    with pytest.raises(UsageError, match="a path has a line break"):
        exported("cron", [scheduled()], Target("/bin/python", Path("/srv/a\nb"), Path("/srv")))


def test_secrets_of_alerts_come_from_the_cluster() -> None:
    """Nothing would be told otherwise: a container has no environment of its own."""
    mail = {
        "to": "a@example.org",
        "from": "b@example.org",
        "host": "smtp.example.org",
        "user_env": "U",
        "password_env": "P",
    }
    alerts = [
        {"on": ["failed"], "webhook": "https://example.org/", "secret_env": "HOOK"},
        {"on": ["failed"], "mail": mail},
    ]
    [file] = exported("kubernetes", [scheduled(alerts=alerts)], TARGET)
    [container] = yaml.safe_load(file.content)["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert [each["name"] for each in container["env"]] == ["HOOK", "P", "U"]
    assert container["env"][0]["valueFrom"] == {"secretKeyRef": {"name": "batchinfer", "key": "HOOK", "optional": True}}


def test_a_job_that_asks_a_server_gets_its_key_and_no_gpu() -> None:
    """The model runs elsewhere."""
    engine = {"kind": "openai", "base_url": "http://host/v1", "api_key_env": "SERVER_KEY"}
    [file] = exported("kubernetes", [scheduled(**(needs_model | {"engine": engine}))], TARGET)
    [container] = yaml.safe_load(file.content)["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert [each["name"] for each in container["env"]] == ["SERVER_KEY"]
    assert container["resources"] == {}
