"""The arithmetic of a report: what is compared with what, ratios, goals, draws, scales and profiles."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.cases import DEFAULT_SERVER, MANY, OTHER, PLANS, SERVERS, Case, Plan, Sweep, read_door
from benchmarks.experiments.sustained import ends
from benchmarks.experiments.workers import gain
from benchmarks.generator import Answers
from benchmarks.goals import Goal, Results, goals
from benchmarks.limits import LIMITS, limit_of
from benchmarks.plots import line_chart, scale
from benchmarks.processes import Layout
from benchmarks.profile import count, native_shares
from benchmarks.report import Report, bases, charts, scarce
from benchmarks.rounds import Round, Row
from benchmarks.traffic import MARK, SAME, SHAPES, heads, target, zipf

NOTHING = Answers(*[0] * len(Answers.__slots__))


def answers(calls: int, **more: float) -> Answers:
    """Return what a generator says of one second."""
    whole = replace(NOTHING, seconds=1.0, ok=calls, ok_total=calls, answers=calls, p50_ms=1.0, p99_ms=2.0)
    return replace(whole, **more)


def row(case: Case, *rates: int, door: str = "", cpu: float = 50.0, postgres: float = 0.0, **more: float) -> Row:
    trees = {"proxy": cpu, "postgres": postgres}
    rounds = [Round(answers(rate, **more), trees, {"proxy": 0.5}) for rate in rates]
    return Row(case, door or case.door, rounds)


def prepaid(connections: int = 64, **more: object) -> Case:
    return replace(Case("prepaid", "tollway", connections=connections, agents=MANY), **more)


def test_a_ratio_is_the_median_of_the_ratios_within_a_round() -> None:
    base = row(Case("nginx"), 100, 1000, 100)
    assert row(prepaid(), 50, 900, 70).ratio(base) == pytest.approx(0.7)
    assert row(prepaid(), 50, 900).ratio(row(Case("nginx"), 0, 900)) == pytest.approx(0.5), "0 of a dead base"


def test_a_row_is_compared_with_the_same_traffic_only() -> None:
    bare, nginx, two, sketch = Case("bare"), Case("nginx"), Case("nginx", workers=2), Case("sketch")
    unpriced = Case("unpriced", "tollway", agents=MANY)
    cases = [bare, replace(bare, connections=16), nginx, two, unpriced, replace(unpriced, server="hypercorn"),
             replace(unpriced, load=0.5), replace(unpriced, shape="large"), replace(unpriced, repeats=True),
             replace(unpriced, raised=True), sketch, replace(sketch, repeats=True), Case("express")]  # fmt: skip
    rows = [row(case, 100) for case in cases]
    mine, other = row(prepaid(), 50), row(prepaid(), 40, door="tollway" + OTHER)
    found = bases(mine, [*rows, mine, other])
    assert {kind: (base.case, base.door) for kind, base in found.items()} == {
        "bare": (bare, "bare"),
        "sketch": (sketch, "sketch"),
        "express": (Case("express"), "express"),
        "nginx": (nginx, "nginx"),
        "unpriced": (unpriced, "tollway"),
        "other": (mine.case, "tollway" + OTHER),
    }
    assert bases(row(prepaid(workers=2), 50), rows)["nginx"].case == two


@pytest.mark.parametrize("wrong", [{"bad_status": 1}, {"shed": 1}, {"socket_errors": 1}, {"unfinished": 1}, {"ok": 0}])
def test_figures_of_a_row_with_anything_but_good_answers_are_no_figures(wrong: dict[str, float]) -> None:
    bad = row(prepaid(16), 100, **wrong)
    assert not bad.valid
    assert bad.doubt
    found = {goal.what: goal for goal in goals(Results([bad, row(Case("express"), 10)], {}), "tollway", MANY)}
    assert found["gateway's CPU per prepaid call, 16 connections"].reached is None


def test_goals_are_reached_or_not_or_were_not_looked_at() -> None:
    rows = [
        row(prepaid(64), 450, cpu=46.0, postgres=20.0), row(Case("express"), 100), row(Case("sketch"), 1000),
        row(Case("unpriced", "tollway", agents=MANY), 500, cpu=32.0), row(Case("nginx"), 10_000),
        row(prepaid(64, raised=True), 450), row(prepaid(64, raised=True, publishers=1000), 470),
        row(prepaid(256, load=0.5), 90, p50_ms=2.0, p99_ms=7.1), row(Case("bare", connections=256, load=0.5), 90),
    ]  # fmt: skip
    found = {
        "idle": {"stream": {"bytes_each": 41 * 1024}},
        "workers": {"rows": [{"valid": True}], "gains": {"prepaid": {"model": 1.7}}},
        "sustained": {"left_later": {"charges": 0, "webhooks": 1}, "charged": 5, "owed": 5},
        "overload": {"p99_ms": 510.0, "charged": 10, "owed": 10, "shed_without_retry_after": 0, "other_statuses": 1},
        "growth": {"steps": [{"rows": 1000, "ratio": 1.0}, {"rows": 10_000_000, "ratio": 0.89}]},
        "x402": {"rows": [{"seller": "tollway", "way": "deferred", "blocks": "instant blocks", "valid": True,
                           "ratio_to": {"fastapi": 6.0}}]},
        "startup": {},
    }  # fmt: skip
    verdicts = {goal.what: goal.reached for goal in goals(Results(rows, found), "tollway", MANY)}
    assert {what: verdict for what, verdict in verdicts.items() if verdict is not None} == {
        "unpriced against the sketch, 64 connections": True,
        "prepaid against Express http-proxy, 64 connections": True,
        "gateway's CPU per unpriced call, 64 connections": True,
        "gateway's CPU per prepaid call, 64 connections": False,
        "PostgreSQL's CPU per prepaid call, 64 connections": True,
        "x402 deferred against the official Python server, instant blocks": True,
        "added latency p50 at half load, prepaid over bare": True,
        "added latency p99 at half load, prepaid over bare": False,
        "two workers against one, prepaid, by the model in which nobody shares a core": False,
        "left to book 5 s after a sustained minute": False,
        "money wrong after a sustained minute, atomic units": True,
        "one publisher against 1,000, 64 connections": True,
        "memory of an idle event stream, of up to 10,000": False,
        "prepaid beside 10^7 ledger rows and 10^5 agents against 10^3 rows": False,
        "p99 of admitted calls at twice the capacity": False,
        "money wrong after overload, atomic units": True,
        "calls refused under overload otherwise than by 503 with Retry-After": False,
    }


def test_what_is_scarce_is_named() -> None:
    case = prepaid()
    busy = {"proxy": 0.5, "postgres": 0.3, "generator": 0.06, "others": 0.04}
    tight = Row(case, case.door, [Round(answers(100), {"proxy": 60.0, "postgres": 30.0}, busy)])
    assert scarce(tight) == (
        "The processors are the limit: 90% busy (the proxy 50%, PostgreSQL 30%, the load generator 6%, others 4%),"
        " 90 us for each call in all."
    )
    idle = Row(case, case.door, [Round(answers(100), {}, {"proxy": 0.2})])
    assert scarce(idle) == "The processors are 20% busy (the proxy 20%); a call waits: p50 1.00 ms."


def test_a_report_says_why_a_goal_is_not_reached_and_is_not_valid_when_a_row_of_ours_is_not() -> None:
    rows = [row(prepaid(), 300, cpu=61.0), row(Case("express"), 100, bad_status=1)]
    options = {"server": "tollway", "agents": MANY, "command": "x"}
    machine = dict.fromkeys(("memory_mib", "file_system", "load_before", "load_after", "softirqs_apart")) | {
        "cores": 2, "cpu": "a processor", "kernel": "6", "python": "CPython 3", "commit": "abc",
    }  # fmt: skip
    report = Report("n", "now", options, {**machine, "packages": {}}, {}, True, {}, {}, {}, rows)
    assert report.valid, "a peer's row is not ours"
    text = report.markdown()
    assert "Measured on 2 cores of a processor, Linux 6, CPython 3, commit abc." in text
    assert "- gateway's CPU per prepaid call, 64 connections: 61 us of 45 us. The processors are" in text
    assert "The limit: The steps of an unpriced call" in text
    assert "What would pass: The shorter walk" in text
    assert "The limit: Indexes" not in text, "nothing about what was not missed"
    rows.append(row(prepaid(16), 100, shed=1))
    assert not report.valid
    assert "not valid: prepaid" in report.markdown()


def test_a_ledger_that_was_not_grown_to_the_end_reaches_nothing() -> None:
    found = {"growth": {"steps": [{"rows": 1000, "ratio": 1.0}]}}
    grown = next(goal for goal in goals(Results([], found), "tollway", MANY) if "ledger rows" in goal.what)
    assert grown.reached is None
    assert grown.cells()[2:] == ("1 x up to 1,000 rows", "not measured"), "but what there is, is said"


def test_a_goal_says_its_bound_and_its_verdict() -> None:
    assert Goal("a", 0.95, True, " x", 0.949).cells() == ("a", "≥ 0.95 x", "0.95 x", "**no**")
    assert Goal("b", 40.0, False, " KiB", 34.04).cells() == ("b", "≤ 40 KiB", "34.0 KiB", "yes")
    assert Goal("c", 40.0, False, " KiB", None).cells() == ("c", "≤ 40 KiB", "", "not measured")


def test_plans_name_every_case_once_and_start_each_door_once() -> None:
    for name, plan in PLANS.items():
        cases = plan.cases()
        assert len({(case.connections, case.name) for case in cases}) == len(cases), name
    sweep = Sweep(("nginx", "express", "unpriced", "prepaid"), workers=(2,), agents=(5, 1), servers=("tollway",))
    assert [(case.door, case.kind, case.agents) for case in Plan([sweep], 1, 1.0).cases()] == [
        ("nginx x2", "nginx", 0), ("tollway raised x2", "unpriced", 5), ("tollway raised x2", "prepaid", 5),
        ("tollway raised x2", "prepaid", 1),
    ]  # fmt: skip


def test_few_agents_have_a_door_with_raised_limits_and_many_have_productions() -> None:
    assert [read_door(case.door) for case in (
        prepaid(), prepaid(workers=2), prepaid(agents=1), prepaid(spread="zipf"), prepaid(raised=True, workers=3),
        Case("unpriced", "hypercorn", agents=7), Case("nginx", workers=2), Case("nginx", raised=True),
    )] == [
        ("tollway", False, 1), ("tollway", False, 2), ("tollway", True, 1), ("tollway", True, 1), ("tollway", True, 3),
        ("hypercorn", True, 1), ("nginx", False, 2), ("nginx", False, 1),
    ]  # fmt: skip
    assert "limits raised" in prepaid(agents=1).name
    assert "limits raised" not in prepaid().name


def test_a_plan_can_be_measured_on_other_servers() -> None:
    assert {case.server for case in PLANS["goals"].cases()} == {"", DEFAULT_SERVER}
    cases = PLANS["goals"].on(("hypercorn", "tollway")).cases()
    assert {case.server for case in cases} == {"", "hypercorn", "tollway"}
    assert DEFAULT_SERVER in SERVERS


def test_agents_take_turns_and_publishers_are_drawn_by_zipf() -> None:
    lines = [*heads(SHAPES["small"], ["/a", "/b"], ["k1", "k2", "k3"])]
    assert [b"k1" in lines[0], b"k2" in lines[1], b"k3" in lines[2], b"k1" in lines[3]] == [True] * 4
    shares = [sum(line.startswith(b"GET " + base) for line in lines) / len(lines) for base in (b"/a/", b"/b/")]
    assert shares == pytest.approx([2 / 3, 1 / 3], abs=0.02)
    small = target("/a", SHAPES["small"])
    assert [*heads(SHAPES["small"], ["/a"], [])] == [f"GET {small} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()]
    assert next(heads(SHAPES["upload"], ["/a"], ["k"])).endswith(b"Bearer k\r\nContent-Length: 65536\r\n\r\n")
    assert zipf(1000, 50) == zipf(1000, 50), "the same in every run"


def test_every_target_has_the_generators_mark_unless_targets_repeat() -> None:
    lines = [*heads(SHAPES["small"], ["/a", "/b"], ["k1", "k2"])]
    assert all(line.count(MARK.encode()) == 1 for line in lines)
    same = [*heads(SHAPES["small"], ["/a"], ["k1", "k2"], repeats=True)]
    assert {line.split(b" ")[1] for line in same} == {target("/a", SHAPES["small"]).replace(MARK, SAME).encode()}


def test_workers_have_cores_of_their_own_as_far_as_there_are_cores() -> None:
    assert Layout.of([0, 1], 1) == Layout((0,), (1,), (1,))
    assert Layout.of([0, 1], 2) == Layout((0, 1), (0, 1), (0, 1))
    assert Layout.of([0, 1, 2, 3], 1) == Layout((0,), (1,), (2, 3))
    assert Layout.of([2, 3, 6, 7], 2) == Layout((2, 3), (6,), (7,))
    assert Layout.of([0, 1], 3).workers == (0, 1, 0)
    assert Layout.of([0, 1, 2, 3], 2).cores == 4
    assert str(Layout.of([0, 1, 2, 3], 1)) == (
        "worker 1 on core 0; PostgreSQL on core 1; Valkey, the upstream, the load generator on cores 2, 3"
    )


def test_what_a_second_worker_brings_is_measured_and_modelled_by_what_a_call_takes() -> None:
    one, two = row(prepaid(), 10_000, cpu=50.0), row(prepaid(workers=2), 11_000, cpu=60.0, postgres=30.0)
    assert gain(one, two) == {
        "measured": 1.1, "model": pytest.approx(1.667), "model_calls_per_second": pytest.approx(33_333.3),
        "model_postgres_cores": 1.0, "model_valkey_cores": 0.0,
    }  # fmt: skip


def test_the_beginning_and_the_end_of_a_long_run_are_compared() -> None:
    assert ends([100] * 30 + [50] * 30) == (100, 50)
    assert ends([4, 2]) == (4, 2)
    assert ends([7]) == (0, 0)


def test_a_scale_holds_its_values_with_few_round_marks() -> None:
    assert scale(3, 4200, log=True) == (1, 10_000, [1, 10, 100, 1000, 10_000])
    assert scale(100, 100, log=True) == (100, 1000, [100, 1000])
    low, high, marks = scale(3, 42, log=False)
    assert (low, high, marks) == (0, 50, [0, 10, 20, 30, 40, 50])


def test_a_chart_is_well_formed_and_leaves_out_what_was_not_measured() -> None:
    svg = line_chart("a < b", ["1", "16", "64"], {"x & y": [1.0, None, 100.0], "z": [10.0, 10.0, 10.0]}, "ms", log=True)
    root = ElementTree.fromstring(svg)
    lines = [node.get("points", "").split() for node in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len(points) for points in lines] == [2, 3]
    assert len({point.split(",")[1] for point in lines[1]}) == 1, "a level line is level"
    assert line_chart("nothing", ["1"], {"x": [None]}, "ms") == ""


def test_plots_are_of_cases_at_several_numbers_of_connections() -> None:
    rows = [row(Case("bare", connections=number), 100 * number) for number in (1, 16)] + [row(prepaid(16), 50)]
    assert [chart.kind for chart in charts(rows)] == ["throughput", "latency", "cpu"]
    assert "prepaid" not in charts(rows)[0].svg
    assert charts(rows[:1]) == []


def test_profiles_count_functions_by_themselves_and_with_what_they_call() -> None:
    folded = "process 1;main (a.py:1);f (/x/y/lib/b.py:2) 3\nprocess 1;main (a.py:1);g (c.py:3);f (/x/y/lib/b.py:2) 1\n"
    alone, within = count(folded + "thread 7;main (a.py:1);h (d.py:4) 1\n")
    assert alone == [("f (lib/b.py:2)", 0.8), ("h (d.py:4)", 0.2)]
    assert dict(within) == {"f (lib/b.py:2)": 0.8, "h (d.py:4)": 0.2, "g (c.py:3)": 0.2}


def test_shares_of_perf_are_summed_by_object_and_addresses_have_no_name() -> None:
    report = (
        "# comment\n    10.00%  libx.so  [.] f\n     5.00%  libx.so  [.] 0x00001\n     2.50%  libx.so  [.] 0x00002\n"
        "     1.00%  [kernel.kallsyms]  [k] tcp_sendmsg\n"
    )
    symbols, objects = native_shares(report)
    assert symbols == [("libx.so: f", 0.1), ("libx.so: (no name)", pytest.approx(0.075)), ("kernel: tcp_sendmsg", 0.01)]
    assert objects == [("libx.so", pytest.approx(0.175)), ("kernel", 0.01)]


def test_of_every_goal_it_is_known_what_limits_it_and_the_documentation_has_it_too() -> None:
    every = [goal.what for goal in goals(Results([], {}), "tollway", MANY)]
    assert all(limit_of(what).design for what in every)
    assert {limit for what in every for limit in (limit_of(what),)} == set(LIMITS), "no words about what is no goal"
    page = " ".join((Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text().split())
    for limit in LIMITS:
        if limit.profile != "none":  # the others have been reached
            assert limit.what in page
            assert limit.design in page
