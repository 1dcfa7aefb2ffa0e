"""Small plots for asset pages, as markdown with an inline image below 100 kB."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aegisops.modelling.drift import Finding
    from aegisops.modelling.rows import Floats

MOST_BARS = 25
MOST_DAYS = 60


def reliability(figures: dict[str, Any]) -> str:
    """Stated probability against how often it came true, in bins of the test rows."""
    from matplotlib.figure import Figure

    bins = figures["candidate"]["reliability"]
    figure = Figure(figsize=(4, 3.2), dpi=90, layout="tight")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.plot([b["predicted"] for b in bins], [b["observed"] for b in bins], "o-", color="0.15")
    axes.set_xlabel("stated probability")
    axes.set_ylabel("share that failed")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    return _markdown("reliability", figure)


def scores(healthy: Floats, before_failure: Floats, usual: float) -> str:
    """Anomaly scores of test rows; right of the line a score is called unusual."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 2.6), dpi=90, layout="tight")
    axes = figure.subplots()
    for values, name, colour in (
        (healthy, "healthy", "0.6"),
        (before_failure, "before a failure", "tab:red"),
    ):
        if values.size:
            axes.hist(values, bins=30, density=True, alpha=0.6, label=name, color=colour)
    axes.axvline(usual, color="0.15", linewidth=1)
    axes.set_xlabel("anomaly score")
    axes.set_ylabel("density")
    if healthy.size or before_failure.size:
        axes.legend(fontsize=7)
    return _markdown("anomaly scores", figure)


def drift(findings: Sequence[Finding]) -> str:
    """Index as a share of its threshold, furthest first; beyond 1 is drift unless explained."""
    from matplotlib.figure import Figure

    known = [
        (f.value / f.threshold, f)
        for f in findings
        if f.value is not None and f.threshold is not None
    ]
    shown = sorted(known, key=lambda pair: pair[0])[-MOST_BARS:]
    figure = Figure(figsize=(5, 0.8 + 0.22 * len(shown)), dpi=90, layout="tight")
    axes = figure.subplots()
    colours = ["tab:red" if f.verdict == "drifted" else "0.6" for _, f in shown]
    axes.barh([f.feature for _, f in shown], [ratio for ratio, _ in shown], color=colours)
    axes.axvline(1, color="0.15", linewidth=1)
    axes.set_xlabel("index / threshold")
    axes.tick_params(labelsize=7)
    return _markdown("drift", figure)


def per_day(rows: Mapping[date, int]) -> str:
    """Rows of a table on its last days."""
    from matplotlib.figure import Figure

    shown = sorted(rows.items())[-MOST_DAYS:]
    figure = Figure(figsize=(5, 1.8), dpi=90, layout="tight")
    axes = figure.subplots()
    axes.bar([f"{day:%m-%d}" for day, _ in shown], [count for _, count in shown], color="0.5")
    axes.set_ylabel("rows")
    axes.tick_params(labelsize=6)
    axes.set_xticks(axes.get_xticks()[:: max(1, len(shown) // 8)])
    return _markdown("rows per day", figure)


def _markdown(title: str, figure: Figure) -> str:
    image = io.BytesIO()
    figure.savefig(image, format="png")
    text = base64.b64encode(image.getvalue()).decode()
    return f"![{title}](data:image/png;base64,{text})"
