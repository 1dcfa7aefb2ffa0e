"""Small plots for asset pages, as markdown with an inline image below 100 kB."""

from __future__ import annotations

import base64
import io
from typing import Any


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
    image = io.BytesIO()
    figure.savefig(image, format="png")
    text = base64.b64encode(image.getvalue()).decode()
    return f"![reliability](data:image/png;base64,{text})"
