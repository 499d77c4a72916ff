"""Metrics: those of all workers, complete, and without names that clients make up."""

from __future__ import annotations

import re
from pathlib import Path

from tests.factories import World
from tests.serving import Reply, Server, eventually, samples_of


def counted(reply: Reply) -> dict[str, float]:
    """What an answer to /metrics says that the workers together counted of the job shop's look-ups."""
    samples = samples_of(reply)
    found = {
        f"{sample.name} {sample.labels['status']}": sample.value
        for sample in samples
        if sample.name == "batchinfer_requests_total"
        and sample.labels["job"] == "shop"
        and sample.labels["route"] == "lookup"
    }
    for name in ("hits_total", "misses_total", "request_seconds_count"):
        found[name] = sum(
            sample.value for sample in samples
            if sample.name == f"batchinfer_{name}" and sample.labels["job"] == "shop"
            and sample.labels.get("route", "lookup") == "lookup"
        )  # fmt: skip
    return found


def test_metrics_are_those_of_all_workers(server: Server) -> None:
    """Whichever worker answers /metrics, every request of every worker is in, once, when all have written their numbers."""
    assert len(server.children()) == 2
    numbers_written(server)
    before, other = map(counted, server.each_worker("/metrics"))
    assert before == other
    etag = server.lookup("shop", text="Tee").headers["etag"]
    for _ in range(9):
        server.lookup("shop", text="Tee")
    for _ in range(5):
        server.lookup("shop", text="Wasser")
    server.request("HEAD", "/v1/jobs/shop/lookup?text=Tee")
    server.lookup("shop", {"if-none-match": etag}, text="Tee")
    server.get("/v1/jobs/shop/lookup")
    server.batch("shop", [{"text": "Tee"}, {"text": "Saft"}, {"text": "Wasser"}])
    expected = {
        "batchinfer_requests_total 200": 12, "batchinfer_requests_total 404": 5, "batchinfer_requests_total 304": 1,
        "batchinfer_requests_total 400": 1, "hits_total": 14, "misses_total": 6, "request_seconds_count": 19,
    }  # fmt: skip
    numbers_written(server)
    for _ in range(4):  # it stays so
        for now in map(counted, server.each_worker("/metrics")):
            assert {name: now.get(name, 0) - before.get(name, 0) for name in expected} == expected


def numbers_written(server: Server) -> None:
    """Waits until each worker has written its numbers twice: the second file has all that was counted until now."""

    def files() -> dict[str, int]:
        found = {path.stem: path.stat().st_mtime_ns for path in server.folder.glob("batchinfer-serve-*/metrics/*.json")}
        return {worker: found.get(worker, 0) for worker in map(str, server.children())}

    for _ in range(2):
        before = files()
        eventually(lambda before=before: all(files()[worker] != at for worker, at in before.items()), server.said, 10)  # type: ignore[misc]


def test_every_metric_is_there(server: Server, shop: World) -> None:
    """/metrics is what Prometheus reads, with each metric of the docs and the right values for each job."""
    (shop.data.folder / "last_run.json").write_text('{"run_id": 1, "finished_at": "2026-11-22T01:00:00+00:00"}')
    eventually(lambda: all(server.metric_of_each("batchinfer_last_success_timestamp_seconds", job="shop")))
    reply = server.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=")
    page = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`(batchinfer_\w+)`", page.split("## Metrics")[1]))
    assert documented == set(re.findall(r"# TYPE (\w+)", reply.body.decode()))
    assert server.metric("batchinfer_last_success_timestamp_seconds", job="shop") == 1795309200
    assert server.metric("batchinfer_version", job="shop") == server.version("shop")
    assert server.metric("batchinfer_entries", job="typed") == 3
    assert 0 <= server.metric("batchinfer_version_age_seconds", job="typed") < 600
    for name in ("pinned", "degraded", "failed_loads_total", "misses_dropped_total"):
        found = {
            sample.labels["job"]: sample.value for sample in server.samples() if sample.name == f"batchinfer_{name}"
        }
        # Other tests ask for numbers without end, which cannot be recorded.
        assert found["typed"] == 0 or name == "misses_dropped_total"
    buckets = [sample for sample in server.samples() if sample.name == "batchinfer_request_seconds_bucket"
               and sample.labels["job"] == "shop" and sample.labels["route"] == "lookup"]  # fmt: skip
    assert [sample.value for sample in buckets] == sorted(sample.value for sample in buckets)
    assert buckets[-1].labels["le"] == "+Inf"


def test_names_that_clients_make_up_are_no_labels(server: Server) -> None:
    """Requests for unknown jobs and pages are counted without their names: labels must stay few."""
    for path in ("/v1/jobs/made-up/lookup?text=x", "/v1/jobs/made-up", "/made-up", "/v1/made-up"):
        server.get(path)
    assert b"made-up" not in server.get("/metrics").body
