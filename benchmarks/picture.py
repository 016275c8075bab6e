"""A plot with two logarithmic axes, as SVG that no library is needed for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 420, 60, 20, 190, 45
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e")


def loglog(lines: Mapping[str, Mapping[int, float]], across: str, up: str) -> str:
    """One line a name, through its points; each decade of both axes has a grid line."""
    xs = _decades(x for points in lines.values() for x in points)
    ys = _decades(y for points in lines.values() for y in points.values())

    def at(x: float, y: float) -> tuple[float, float]:
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        right = (math.log10(x) - xs[0]) / (xs[-1] - xs[0]) * width
        high = (math.log10(y) - ys[0]) / (ys[-1] - ys[0]) * height
        return LEFT + right, HEIGHT - BOTTOM - high

    drawn = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for decade in xs:
        x, y = at(10.0**decade, 10.0 ** ys[0])
        drawn += [_line((x, TOP), (x, y)), _text(x, y + 18, f"{10**decade:,}", "middle")]
    for decade in ys:
        x, y = at(10.0 ** xs[0], 10.0**decade)
        drawn += [
            _line((x, y), (WIDTH - RIGHT, y)),
            _text(x - 6, y + 4, f"{10.0**decade:g}", "end"),
        ]
    drawn += [_text(LEFT, HEIGHT - 8, f"{across} (across), {up} (up)", "start")]
    for (name, points), colour in zip(lines.items(), COLOURS, strict=False):
        places = [at(x, y) for x, y in sorted(points.items())]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        drawn.append(_text(places[-1][0] + 8, places[-1][1] + 4, name, "start", colour))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'{head} font-family="sans-serif" font-size="12">\n' + "\n".join(drawn) + "\n</svg>\n"


def _decades(values: Iterable[float]) -> list[int]:
    logs = [math.log10(value) for value in values]
    first, last = math.floor(min(logs)), math.ceil(max(logs))
    return list(range(first, max(last, first + 1) + 1))


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="#ddd"/>'


def _text(x: float, y: float, words: str, anchor: str, colour: str = "#444") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {place}>{escape(words)}</text>"
