"""Alert rules as Prometheus decides them, as far as those of the books go: one aggregate, compared with one number.

What is read is the text of `/metrics`, so a metric or a label that a rule names and nobody sends is a rule that never
fires. `for` is left out: a test does not wait.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from pathlib import Path

import yaml

RULES = Path(__file__).resolve().parents[2] / "config" / "prometheus" / "alerts.yml"
PART = re.compile(r"(min|max)\s*(?:by \([\w, ]+\))?\s*\((\w+)(?:\{(.*?)\})?\)\s*(>|<|!=|==)\s*(-?[\d.e]+)")
MATCH = re.compile(r'(\w+)(=~|=)"([^"]*)"')
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
COMPARED: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt, "<": operator.lt, "!=": operator.ne, "==": operator.eq,
}  # fmt: skip


def firing(metrics: str, alert: str) -> bool:
    """Return whether an alert's expression is true of these metrics: of any group that it is asked for."""
    (rule,) = [
        rule
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for rule in group["rules"]
        if rule["alert"] == alert
    ]
    parts = re.split(r"\bor\b", rule["expr"])
    return any(_true(metrics, part.strip()) for part in parts)


def _true(metrics: str, text: str) -> bool:
    found = PART.fullmatch(text)
    assert found, f"this cannot be read here: {text}"
    _, name, wanted, comparison, bound = found.groups()
    values = [
        float(value)
        for metric, labels, value in SAMPLE.findall(metrics)
        if metric == name and _fits(dict(re.findall(r'(\w+)="([^"]*)"', labels)), wanted or "")
    ]
    # Of one worker each series is a group of its own, and the least or the most of a group its only value.
    return any(COMPARED[comparison](value, float(bound)) for value in values)


def _fits(labels: dict[str, str], wanted: str) -> bool:
    return all(
        re.fullmatch(text if how == "=~" else re.escape(text), labels.get(name, ""))
        for name, how, text in MATCH.findall(wanted)
    )
