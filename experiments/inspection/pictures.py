"""Draws bars, and points with logarithmic axes, as SVG that takes its colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from experiments.inspection.facts import Bar
from experiments.page.markup import Markup, element

PICTURE_STYLE = """
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--soft); font-size: 13px; }
svg .mark { fill: var(--c0); } svg .axis { stroke: var(--line); }
th.number { text-align: right; }
"""
_WIDTH, _HEIGHT = 720, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 10, 12, 42
_LABEL = 8  # width of a character, and a little more, in the picture's units


def bar_picture(bars: Sequence[Bar]) -> Markup:
    """Return bars from left to right, with as many labels as have room. The whole label and count show on hover."""
    most = max(bar.count for bar in bars) or 1
    inner, base = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _BOTTOM
    step = inner / len(bars)
    width = min(step * 0.85, 60.0)
    room = max(len(bar.label) for bar in bars) * _LABEL + 6
    every = math.ceil(room / step)
    parts = [_line(_LEFT, base, _WIDTH - _RIGHT, base), *_counts_axis(most, base)]
    for number, bar in enumerate(bars):
        centre = _LEFT + (number + 0.5) * step
        height = (base - _TOP) * bar.count / most
        hover = element("title", f"{bar.label}: {bar.count:,}")
        parts.append(_box(centre - width / 2, base - height, width, height, hover))
        if number % every == 0:
            parts.append(_text(centre, base + 18, bar.label, "middle"))
    return _svg(parts, f"{len(bars)} bars, the highest {most:,}")


def curve_picture(points: Sequence[tuple[int, int]], x_name: str, y_name: str) -> Markup:
    """Return points (x >= 1, y >= 0) with logarithmic axes; points with y = 0 are left out."""
    shown = [(x, y) for x, y in points if y > 0]
    most_x = max([10, *(x for x, _ in points)])
    most_y = max([10, *(y for _, y in shown)])
    inner, base = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _BOTTOM

    def across(x: float) -> float:
        return _LEFT + inner * math.log(x) / math.log(most_x)

    def down(y: float) -> float:
        return base - (base - _TOP) * math.log(y) / math.log(most_y)

    parts = [_text(_LEFT + inner / 2, _HEIGHT - 6, x_name, "middle")]
    for power in range(int(math.log10(most_x) + 1e-9) + 1):
        place = across(10**power)
        parts += [_line(place, _TOP, place, base), _text(place, base + 16, f"{10**power:,}", "middle")]
    for power in range(int(math.log10(most_y) + 1e-9) + 1):
        place = down(10**power)
        parts += [
            _line(_LEFT, place, _WIDTH - _RIGHT, place),
            _text(_LEFT - 6, place + 4, f"{10**power:,}", "end"),
        ]
    for x, y in shown:
        hover = element("title", f"place {x:,}: {y:,}")
        parts.append(element("circle", hover, cx=f"{across(x):.1f}", cy=f"{down(y):.1f}", r="3", class_="mark"))
    return _svg(parts, f"{y_name} by {x_name}")


def _counts_axis(most: int, base: float) -> list[Markup]:
    """Return lines at about three round counts."""
    power = 10 ** int(math.log10(most))
    unit = next(size for size in (power // 2 or 1, power, 2 * power) if most // size <= 4 or size == 2 * power)
    parts = []
    for count in range(unit, most + 1, unit):
        place = base - (base - _TOP) * count / most
        parts += [_line(_LEFT, place, _WIDTH - _RIGHT, place), _text(_LEFT - 6, place + 4, f"{count:,}", "end")]
    return [*parts, _text(_LEFT - 6, base + 4, "0", "end")]


def _svg(parts: Sequence[Markup], label: str) -> Markup:
    return element("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=label)


def _text(x: float, y: float, content: str, anchor: str) -> Markup:
    return element("text", content, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _line(x1: float, y1: float, x2: float, y2: float) -> Markup:
    return element("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_="axis")


def _box(x: float, y: float, width: float, height: float, *children: Markup) -> Markup:
    return element(
        "rect", *children, x=f"{x:.1f}", y=f"{y:.1f}", width=f"{width:.1f}", height=f"{height:.1f}", class_="mark"
    )
