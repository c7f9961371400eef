"""Metrics have bounded labels and add up over worker processes, living and dead."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry import multiprocess
from gateway.telemetry.metrics import Bounded, Metrics

ROOT = Path(__file__).parents[2]
WORKER = """
import sys
from gateway.telemetry.metrics import Metrics
metrics = Metrics()
for _ in range(10):
    metrics.observe_call("acme", 200, "settled", "USDC", 2_500, [("match", 0.0002), ("forward", 0.03)])
metrics.open_exchanges(3)
metrics.set_pool("postgres", "idle", 4)
metrics.ledger_batch(16, 0.002)
metrics.flush()
print("ready", flush=True)
sys.stdin.read()
"""
SCRAPE = "import sys; from gateway.telemetry.metrics import Metrics; sys.stdout.buffer.write(Metrics().render())"


def series(text: bytes) -> dict[str, float]:
    """Return every sample as `name{labels}` -> value."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_a_call_is_counted_under_publisher_class_and_outcome() -> None:
    metrics = Metrics()
    metrics.observe_call("acme", 200, "settled", "USDC", 2_500, [("match", 0.0002), ("forward", 0.03)])
    metrics.observe_call("acme", 204, "settled", "USDC", 500)
    metrics.observe_call("acme", 502, "refunded")
    metrics.observe_call("acme", 0, "client_gone")
    found = series(metrics.render())
    assert found["tollway_requests_total{outcome=settled,publisher=acme,status_class=2xx}"] == 2
    assert found["tollway_requests_total{outcome=refunded,publisher=acme,status_class=5xx}"] == 1
    assert found["tollway_requests_total{outcome=client_gone,publisher=acme,status_class=none}"] == 1
    assert found["tollway_revenue_atomic_total{asset=USDC,publisher=acme}"] == 3_000
    assert found["tollway_stage_seconds_bucket{le=0.0001,stage=match}"] == 0
    assert found["tollway_stage_seconds_bucket{le=0.00025,stage=match}"] == 1
    assert found["tollway_stage_seconds_count{stage=forward}"] == 1


def test_every_part_has_its_metric() -> None:
    metrics = Metrics()
    metrics.open_exchanges(2)
    metrics.open_exchanges(-1)
    metrics.open_holds(5)
    metrics.limit_verdict("key", "refused")
    metrics.upstream_error("acme", "timeout")
    metrics.set_pool("postgres", "busy", 3)
    metrics.cache_event("keys", "hit", 7)
    metrics.set_cache_entries("keys", 40)
    metrics.ledger_batch(16, 0.002)
    found = series(metrics.render())
    assert found["tollway_open_exchanges{}"] == 1
    assert found["tollway_open_holds{}"] == 5
    assert found["tollway_limit_verdicts_total{policy=key,verdict=refused}"] == 1
    assert found["tollway_upstream_errors_total{kind=timeout,publisher=acme}"] == 1
    assert found["tollway_pool{pool=postgres,state=busy}"] == 3
    assert found["tollway_cache_events_total{cache=keys,event=hit}"] == 7
    assert found["tollway_cache_entries{cache=keys}"] == 40
    assert found["tollway_ledger_batch_size_sum{}"] == 16
    assert found["tollway_ledger_batch_seconds_bucket{le=0.0025}"] == 1
    assert any(re.fullmatch(r"tollway_build_info\{python=3\.\d+\.\d+,version=.+\}", name) for name in found)
    assert not any("_created" in name for name in found)


def test_500_calls_to_slugs_that_do_not_exist_make_one_series() -> None:
    """EX-46."""
    metrics = Metrics()
    for _ in range(500):
        metrics.observe_call(None, 404, "unknown_publisher")
    requests = {name: value for name, value in series(metrics.render()).items() if name.startswith("tollway_requests")}
    assert requests == {"tollway_requests_total{outcome=unknown_publisher,publisher=unknown,status_class=4xx}": 500}


def test_publishers_past_a_thousand_share_the_label_other() -> None:
    metrics = Metrics()
    for number in range(1_200):
        metrics.observe_call(f"p{number}", 200, "settled")
    metrics.observe_call("p0", 200, "settled")
    found = series(metrics.render())
    assert sum(name.startswith("tollway_requests_total{") for name in found) == 1_001
    assert found["tollway_requests_total{outcome=settled,publisher=other,status_class=2xx}"] == 200
    assert found["tollway_requests_total{outcome=settled,publisher=p0,status_class=2xx}"] == 2


def test_a_known_value_keeps_its_label_when_the_room_is_used_up() -> None:
    bounded = Bounded(2)
    assert [bounded.label(value) for value in ("a", "b", "c", "a", None)] == ["a", "b", "other", "a", "unknown"]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name a shared directory in this environment, as the parent of workers does."""
    monkeypatch.setenv(multiprocess.VARIABLE, "")
    multiprocess.prepare(tmp_path)
    return tmp_path


def worker() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def scrape() -> dict[str, float]:
    return series(subprocess.run([sys.executable, "-c", SCRAPE], capture_output=True, check=True, cwd=ROOT).stdout)


def test_workers_add_up_and_a_dead_one_leaves_its_counters_only(directory: Path) -> None:
    workers = [worker() for _ in range(3)]
    try:
        found = scrape()
        assert found["tollway_requests_total{outcome=settled,publisher=acme,status_class=2xx}"] == 30
        assert found["tollway_revenue_atomic_total{asset=USDC,publisher=acme}"] == 75_000
        assert found["tollway_stage_seconds_count{stage=forward}"] == 30
        assert found["tollway_stage_seconds_bucket{le=0.05,stage=forward}"] == 30
        assert found["tollway_open_exchanges{}"] == 9
        assert found["tollway_pool{pool=postgres,state=idle}"] == 12
        assert found["tollway_ledger_batch_size_sum{}"] == 48
        assert [value for name, value in found.items() if name.startswith("tollway_build_info")] == [1]
        end(workers.pop())  # SIGKILL: nobody could say goodbye
        found = scrape()
        assert found["tollway_open_exchanges{}"] == 6
        assert found["tollway_pool{pool=postgres,state=idle}"] == 8
        assert found["tollway_requests_total{outcome=settled,publisher=acme,status_class=2xx}"] == 30
    finally:
        for process in workers:
            end(process)


def test_mark_dead_forgets_a_workers_gauges(directory: Path) -> None:
    process = worker()
    end(process)
    assert list(directory.glob(f"gauge_live*_{process.pid}.db"))
    code = f"from gateway.telemetry.metrics import mark_dead; mark_dead({process.pid})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert not list(directory.glob(f"gauge_live*_{process.pid}.db"))


def test_prepare_removes_an_earlier_runs_numbers(directory: Path) -> None:
    end(worker())
    assert list(directory.glob("*.db"))
    multiprocess.prepare(directory)
    assert not list(directory.glob("*.db"))
    assert os.environ[multiprocess.VARIABLE] == str(directory)


def test_naming_the_directory_too_late_is_refused(directory: Path) -> None:
    with pytest.raises(RuntimeError, match="before the workers start"):
        Metrics()
