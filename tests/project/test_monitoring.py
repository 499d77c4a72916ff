"""The alerting rules and the dashboard in docker/: whole, and about metrics that there are."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families

from batchinfer.alerts.textfile import metrics_file
from batchinfer.serve.metrics import WorkerMetrics, exposition
from batchinfer.serve.registry import JobRegistry
from tests.factories import LENIENT, World, imports_job

DOCKER = Path(__file__).parents[2] / "docker"
RULES = DOCKER / "prometheus" / "alert-rules.yml"
DASHBOARD: dict[str, Any] = json.loads((DOCKER / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
RULE_FILE = {
    "type": "object", "required": ["groups"], "additionalProperties": False,
    "properties": {"groups": {"type": "array", "minItems": 1, "items": {
        "type": "object", "required": ["name", "rules"], "additionalProperties": False,
        "properties": {"name": {"type": "string"}, "rules": {"type": "array", "minItems": 1, "items": {
            "type": "object", "required": ["alert", "expr", "labels", "annotations"], "additionalProperties": False,
            "properties": {
                "alert": {"type": "string", "pattern": "^Batchinfer[A-Za-z]+$"}, "expr": {"type": "string"},
                "for": {"type": "string", "pattern": "^[0-9]+[smhd]$"}, "labels": TEXTS,
                "annotations": {**TEXTS, "required": ["summary"]},
            },
        }}},
    }}},
}  # fmt: skip
"""What Prometheus takes as a file of rules, as far as alerting goes."""
PANEL = {
    "type": "object", "required": ["id", "title", "description", "type", "datasource", "gridPos", "targets", "fieldConfig"],
    "properties": {
        "id": {"type": "integer"}, "title": {"type": "string"}, "type": {"enum": ["stat", "timeseries"]},
        "gridPos": {
            "type": "object", "required": ["x", "y", "w", "h"],
            "properties": {"x": {"minimum": 0}, "y": {"minimum": 0}, "w": {"minimum": 1}, "h": {"minimum": 1}},
        },
        "targets": {"type": "array", "minItems": 1, "items": {
            "type": "object", "required": ["refId", "expr", "datasource", "legendFormat"],
            "properties": {"datasource": {"const": {"type": "prometheus", "uid": "${source}"}}},
        }},
    },
}  # fmt: skip
BOARD = {
    "type": "object", "required": ["title", "uid", "schemaVersion", "templating", "panels", "time"],
    "properties": {"panels": {"type": "array", "items": PANEL}, "schemaVersion": {"type": "integer", "minimum": 36}},
}  # fmt: skip
"""What Grafana takes as a dashboard, as far as this one goes."""


def rules() -> list[dict[str, Any]]:
    content = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    Draft202012Validator(RULE_FILE).validate(content)
    return [rule for group in content["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    """All that is asked of Prometheus."""
    targets = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    variables = [variable["query"] for variable in DASHBOARD["templating"]["list"]]
    return [rule["expr"] for rule in rules()] + [target["expr"] for target in targets] + variables


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of all samples that the service and a run's file really have."""
    folder = tmp_path_factory.mktemp("monitored")
    alerts = [{"command": ["true"], "stale_after": "8d"}]
    world: World = imports_job(folder, {"id": [1]}, gate=LENIENT, alerts=alerts)
    world.take_in({"id": [1], "prediction": ["one"]})
    world.run()
    registry = JobRegistry(world.data.root, lambda _: None, records_misses=False)
    registry.refresh()
    metrics = WorkerMetrics()
    metrics.series["shop", "lookup", "200"].observe(0.001)
    said = exposition(metrics, folder / "none", folder, registry).decode() + metrics_file(world.data).read_text()
    families = list(text_string_to_metric_families(said))
    names = {sample.name for family in families for sample in family.samples}
    counters = {f"{family.name}_total" for family in families if family.type == "counter"}
    return names | counters | {family.name for family in families if family.type == "gauge"}


def test_every_metric_that_is_asked_for_is_there(printed: set[str]) -> None:
    """Rules and panels name only what the service and the files of runs print."""
    asked = {name for expression in expressions() for name in re.findall(r"\bbatchinfer_\w+", expression)}
    assert len(asked) > 15
    assert asked - printed == set()


def test_expressions_are_balanced() -> None:
    """Brackets close, and labels are those that the metrics have."""
    for expression in expressions():
        for opening, closing in ("()", "{}", "[]"):
            assert expression.count(opening) == expression.count(closing), expression
        labels = set(re.findall(r"[{,](\w+)=", expression))
        assert labels <= {"job", "status", "route", "le"}, expression


def test_each_rule_has_a_name_of_its_own() -> None:
    """And says how bad it is, and what it is in a sentence."""
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"].endswith(".")


def test_the_dashboard_is_whole() -> None:
    """Its form is what Grafana takes; panels have ids and places of their own, within the width of a dashboard."""
    Draft202012Validator(BOARD).validate(DASHBOARD)
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"], (one, other)
    for panel in panels:
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_rules() -> None:
    """Prometheus' own checker has nothing to say."""
    done = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
