"""A model's validation as one HTML file that needs nothing else: figures, curves, tables. Pure."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from aegisops.modelling.metrics import Labels
from aegisops.modelling.rows import Floats

WIDTH, HEIGHT, MARGIN = 320, 240, 36
POINTS = 120
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1d2733;max-width:1100px;margin:2em auto;
padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:1.8em;border-bottom:1px solid #d5dbe3}
table{border-collapse:collapse;margin:.6em 0}td,th{padding:.25em .8em;text-align:right;
border-bottom:1px solid #e6eaf0}td:first-child,th:first-child{text-align:left}
figure{display:inline-block;margin:.4em 1em .4em 0}figcaption{font-size:.9em;color:#4a5766}
.failed{color:#b42318;font-weight:600}.passed{color:#146c43}code{font-size:.92em}
"""
_COLOURS = ("#1f5fbf", "#c2571a", "#5f6b7a", "#7a3fa0")

Curve = tuple[Sequence[float], Sequence[float]]


def page(title: str, about: Mapping[str, Any], sections: Sequence[tuple[str, str]]) -> str:
    """The whole file: a table of facts, then sections of heading and HTML."""
    facts = table(("", ""), list(about.items()))
    body = "".join(f"<h2>{html.escape(name)}</h2>{content}" for name, content in sections)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{html.escape(title)}</h1>{facts}{body}</body></html>"
    )


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; numbers to three places, None as a dash, `passed` and `failed` in colour."""
    head = "".join(f"<th>{html.escape(h)}</th>" for h in headings)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def note(text: str) -> str:
    """A paragraph."""
    return f"<p>{html.escape(text)}</p>"


def chart(
    caption: str,
    curves: Mapping[str, Curve],
    *,
    x: str,
    y: str,
    diagonal: bool = False,
    marks: bool = False,
) -> str:
    """Curves over [0, 1] × [0, 1] as SVG; `marks` draws points instead of lines."""
    parts = [_axes(x, y, ("0", "1"), ("0", "1"))]
    if diagonal:
        parts.append(_line([0, 1], [0, 1], "#b8c0cb", dashed=True))
    for colour, (name, (xs, ys)) in zip(_COLOURS, curves.items(), strict=False):
        parts.append(_line(xs, ys, colour))
        if marks:
            parts += [_dot(a, b, colour) for a, b in zip(xs, ys, strict=True)]
        row = MARGIN + 14 * list(curves).index(name)
        parts.append(
            f'<text x="{WIDTH - 8}" y="{row}" text-anchor="end" fill="{colour}">'
            f"{html.escape(name)}</text>"
        )
    return _figure(caption, parts)


def histogram(caption: str, values: Floats, *, x: str, bins: int = 12) -> str:
    """Counts of the finite values as SVG bars."""
    known = values[np.isfinite(values)]
    if not known.size:
        return note(f"{caption}: nothing to show")
    counts, edges = np.histogram(known, bins=bins, range=(0, float(known.max()) or 1.0))
    top = int(counts.max())
    parts = [_axes(x, "count", ("0", f"{edges[-1]:.3g}"), ("0", str(top)))]
    for i, count in enumerate(counts):
        left, right = _x(i / bins), _x((i + 1) / bins)
        up = _y(count / top)
        parts.append(
            f'<rect x="{left:.1f}" y="{up:.1f}" width="{right - left - 1:.1f}" '
            f'height="{_y(0) - up:.1f}" fill="{_COLOURS[0]}"/>'
        )
    return _figure(caption, parts)


def bars(caption: str, values: Mapping[str, float], unit: str = "") -> str:
    """Labelled horizontal bars, in the order given."""
    most = max((abs(v) for v in values.values()), default=1.0) or 1.0
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{value:.3f} {html.escape(unit)}</td>"
        f'<td style="text-align:left"><svg width="220" height="12"><rect width="'
        f'{220 * abs(value) / most:.1f}" height="12" fill="{_COLOURS[0]}"/></svg></td></tr>'
        for name, value in values.items()
    )
    return f"<figure><table>{rows}</table><figcaption>{html.escape(caption)}</figcaption></figure>"


def precision_recall(y: Labels, p: Floats) -> Curve:
    """Recall and precision at up to `POINTS` thresholds, from the highest down."""
    hits, alarms = _cumulative(y, p)
    return _thinned(hits / max(hits[-1], 1), hits / alarms)


def roc(y: Labels, p: Floats) -> Curve:
    """False and true positive rate at up to `POINTS` thresholds."""
    hits, alarms = _cumulative(y, p)
    misses = alarms - hits
    return _thinned(np.r_[0.0, misses / max(misses[-1], 1)], np.r_[0.0, hits / max(hits[-1], 1)])


def reliability(points: Sequence[Mapping[str, float]]) -> Curve:
    """Stated probability and observed share, as `metrics.reliability` gives them."""
    return [q["predicted"] for q in points], [q["observed"] for q in points]


def _cumulative(y: Labels, p: Floats) -> tuple[Floats, Floats]:
    order = np.argsort(-p, kind="stable")
    ends = np.flatnonzero(np.diff(p[order], append=-np.inf))
    return np.cumsum(y[order])[ends].astype(float), (ends + 1).astype(float)


def _thinned(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> Curve:
    keep = np.unique(np.linspace(0, len(x) - 1, POINTS).round().astype(int))
    return x[keep].tolist(), y[keep].tolist()


def _cell(value: Any) -> str:  # noqa: ANN401 - whatever a figure is
    if value is None:
        text, style = "–", ""
    elif isinstance(value, float):
        text, style = f"{value:.3f}" if np.isfinite(value) else "–", ""
    else:
        text = html.escape(str(value))
        style = f' class="{text}"' if text in {"passed", "failed"} else ""
    return f"<td{style}>{text}</td>"


def _figure(caption: str, parts: Sequence[str]) -> str:
    return (
        f'<figure><svg width="{WIDTH}" height="{HEIGHT}" font-size="11" font-family="sans-serif">'
        f"{''.join(parts)}</svg><figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _axes(x: str, y: str, xs: tuple[str, str], ys: tuple[str, str]) -> str:
    left, right, low, high = _x(0), _x(1), _y(0), _y(1)
    return (
        f'<path d="M{left} {high}V{low}H{right}" fill="none" stroke="#5f6b7a"/>'
        f'<text x="{left}" y="{low + 14}">{xs[0]}</text>'
        f'<text x="{right}" y="{low + 14}" text-anchor="end">{html.escape(xs[1])}</text>'
        f'<text x="{(left + right) / 2}" y="{low + 26}" text-anchor="middle">'
        f"{html.escape(x)}</text>"
        f'<text x="{left - 4}" y="{low}" text-anchor="end">{ys[0]}</text>'
        f'<text x="{left - 4}" y="{high + 8}" text-anchor="end">{html.escape(ys[1])}</text>'
        f'<text x="{left}" y="{high - 8}">{html.escape(y)}</text>'
    )


def _line(xs: Sequence[float], ys: Sequence[float], colour: str, *, dashed: bool = False) -> str:
    points = " ".join(f"{_x(a):.1f},{_y(b):.1f}" for a, b in zip(xs, ys, strict=True))
    dash = ' stroke-dasharray="4 4"' if dashed else ""
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>'


def _dot(a: float, b: float, colour: str) -> str:
    return f'<circle cx="{_x(a):.1f}" cy="{_y(b):.1f}" r="3" fill="{colour}"/>'


def _x(share: float) -> float:
    return MARGIN + share * (WIDTH - MARGIN - 10)


def _y(share: float) -> float:
    return HEIGHT - MARGIN - share * (HEIGHT - MARGIN - 24)
