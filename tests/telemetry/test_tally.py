"""Tallies end in the library's children exactly as single calls would."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram

from gateway.telemetry import tally
from gateway.telemetry.tally import Count, Sheet, Spread

BOUNDS = (0.1, 1.0, 10.0)


def samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    found = [sample for metric in registry.collect() for sample in metric.samples]
    return {
        (sample.name, sample.labels.get("le", "")): sample.value for sample in found if "created" not in sample.name
    }


def histogram() -> tuple[CollectorRegistry, Histogram]:
    registry = CollectorRegistry()
    return registry, Histogram("h", "h", registry=registry, buckets=BOUNDS)


@given(st.lists(st.sampled_from([0.0, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 99.0])))
def test_a_flushed_spread_equals_the_librarys_own_observations(observed: list[float]) -> None:
    (ours, mine), (theirs, reference) = histogram(), histogram()
    spread = Spread(mine, BOUNDS, Sheet())
    for value in observed:
        spread.observe(value)
        reference.observe(value)
    assert samples(ours) == pytest.approx(samples(theirs))


async def test_many_additions_reach_the_library_in_one_flush_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "FLUSH_SECONDS", 0.02)
    registry = CollectorRegistry()
    count = Count(Counter("c", "c", registry=registry), Sheet())
    for _ in range(100):
        count.add()
    assert registry.get_sample_value("c_total") == 0
    await asyncio.sleep(0.05)
    assert registry.get_sample_value("c_total") == 100
    count.add(5)
    await asyncio.sleep(0.05)
    assert registry.get_sample_value("c_total") == 105


def test_a_loop_that_ended_before_its_flush_loses_nothing() -> None:
    registry, sheet = CollectorRegistry(), Sheet()
    one, other = (Count(Counter(name, "c", registry=registry), sheet) for name in ("one", "other"))

    async def add(count: Count, wait: float) -> None:
        count.add()
        await asyncio.sleep(wait)

    asyncio.run(add(one, 0))
    asyncio.run(add(other, tally.FLUSH_SECONDS * 1.5))
    assert registry.get_sample_value("one_total") == registry.get_sample_value("other_total") == 1


def test_without_a_loop_numbers_are_there_at_once() -> None:
    registry = CollectorRegistry()
    Count(Counter("c", "c", registry=registry), Sheet()).add(3)
    assert registry.get_sample_value("c_total") == 3
