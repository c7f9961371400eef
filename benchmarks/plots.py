"""Line charts as SVG text: few marks, a legend, a logarithmic or linear scale. No library draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 790, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 240, 40, 45
COLOURS = ("#1b6ca8", "#d1495b", "#2e933c", "#8d6a9f", "#e28413", "#3a3a3a", "#00a6a6", "#a05195", "#7a5c00", "#888888")


def line_chart(
    title: str, across: Sequence[str], series: Mapping[str, Sequence[float | None]], unit: str, *, log: bool = False
) -> str:
    """Return an SVG with a line per series over the labels `across`; None leaves a point out."""
    values = [value for line in series.values() for value in line if value is not None and (value > 0 or not log)]
    if not values:
        return ""
    low, high, marks = scale(min(values), max(values), log=log)

    def x(index: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (index / max(len(across) - 1, 1))

    def y(value: float) -> float:
        share = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{escape(title)} ({escape(unit)})</text>',
    ]
    for mark in marks:
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(mark):.1f}" y2="{y(mark):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(mark) + 4:.1f}" text-anchor="end">{mark:,g}</text>')
    for index, label in enumerate(across):
        parts.append(f'<text x="{x(index):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{escape(label)}</text>')
    for number, (name, line) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = [
            (x(index), y(value)) for index, value in enumerate(line) if value is not None and (value > 0 or not log)
        ]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
        height = TOP + 16 * number
        parts.append(f'<rect x="{WIDTH - RIGHT + 12}" y="{height - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 28}" y="{height}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def scale(smallest: float, largest: float, *, log: bool) -> tuple[float, float, list[float]]:
    """Return the ends of an axis that holds both values, and round marks on it; linear axes begin at 0 or below."""
    if log:
        first, last = math.floor(math.log10(smallest)), math.ceil(math.log10(largest))
        last = max(last, first + 1)
        return 10.0**first, 10.0**last, [10.0**power for power in range(first, last + 1)]
    low = min(0.0, smallest)
    span = (largest - low) or 1.0
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next((factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 6), 10)
    marks = [step * number for number in range(math.floor(low / step), math.ceil(largest / step) + 1)]
    return marks[0], max(marks[-1], marks[0] + step), marks
