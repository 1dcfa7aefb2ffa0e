"""Do the intervals of remaining life still hold? Asked when data or predictions drifted.

gold/features and gold/labels since the training of the model in production → its coverage.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from aegisops import remaining_life as scored
from aegisops import scoring
from aegisops.modelling import remaining_life
from aegisops.modelling.rows import labelled, matrix
from aegisops.schemas.tables import FEATURES, LABELS
from aegisops_assets.steps.platform import Fleet, Platform

LOWEST, HIGHEST = 0.85, 0.95
"""Of intervals made to hold 90 %. What is stated lower, for want of failures, is allowed to miss
that by the same five points on its lower side."""
FEWEST_FAILURES = 5
"""Since training; with fewer nothing is said."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How the intervals held since training."""

    share: float | None
    """Of answered rows whose outcome is known; None when too few failures tell."""
    stated: float
    rows: int
    failures: int
    since: datetime

    @property
    def has_failed(self) -> bool:
        """Whether the intervals hold too few lives, or too many to be of use."""
        lowest = min(LOWEST, self.stated - (HIGHEST - LOWEST) / 2)
        return self.share is not None and not lowest <= self.share <= HIGHEST

    @property
    def told(self) -> str:
        """One line for the check."""
        if self.share is None:
            return f"{self.failures} failures since training, {FEWEST_FAILURES} needed to tell"
        return (
            f"the {self.stated:.0%} interval held {self.share:.1%} of the lives of {self.rows:,} "
            f"rows since {self.since:%Y-%m-%d %H:%M} ({self.failures} failures); "
            f"{LOWEST:.0%} to {HIGHEST:.0%} is as made"
        )


def since_training(platform: Platform, fleet: Fleet, bundle: scoring.Bundle) -> Coverage | None:
    """Coverage on rows newer than the bundle's; None when it says nothing of remaining life.

    Only rows that lie at least their interval's upper end back count: of newer ones the early
    failures are known already and the long lives are not, which would make coverage look worse.
    """
    if bundle.life is None:
        return None
    machine_class = fleet.machine_class
    trained = datetime.fromisoformat(bundle.manifest["trained_at"])
    of_class = pl.col("machine_class") == machine_class.name
    features, labels = (
        platform.lake.scan(table).filter(of_class & (pl.col("ts") > trained)).collect()
        for table in (FEATURES, LABELS)
    )
    rows = labelled(features, labels)
    nothing = Coverage(None, bundle.life.coverage, 0, 0, trained)
    if rows.is_empty():
        return nothing
    scores = scored.scores(bundle.life, matrix(rows, machine_class))
    end = rows["ts"].to_numpy() + scored.estimate(bundle.life, scores).high * machine_class.hour
    # NaN, where nothing is said, is never due.
    due = end <= features["ts"].cast(pl.Int64).to_numpy().max()
    known = remaining_life.lives(rows, machine_class, bundle.horizon_us).take(due)
    found = remaining_life.check(bundle.life, scores[due], known)
    failures = int(found["failures"])
    share = found["coverage"]
    is_enough = failures >= FEWEST_FAILURES and np.isfinite(share)
    return Coverage(
        share if is_enough else None,
        bundle.life.coverage,
        int(due.sum()),
        failures,
        trained,
    )
