"""Production and shadow on the same served vectors: what was logged, and what came of it.

Reads bronze/predictions, bronze/shadow_scores and what happened afterwards; changes nothing. It
says whether the shadow may take over on this evidence; who may decide that is not its question.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from aegisops import scoring
from aegisops.lake import Lake
from aegisops.machines import MachineClass
from aegisops.modelling import metrics
from aegisops.modelling.labels import label_rows
from aegisops.modelling.metrics import Ranking
from aegisops.names import Rung
from aegisops.releases import Pointer, Releases
from aegisops.schemas.tables import EVENTS, FEEDBACK, PREDICTIONS, SHADOW_SCORES

ENOUGH_PAIRS = 200
"""Served vectors both models must have scored before anything is decided."""
MOST_ALERTS_FACTOR, MOST_ALERTS_MORE = 2.0, 0.02
"""The shadow may call at most this many times as many vectors elevated as production, plus this
share of all: what would flood the control room is no better model."""
FEWEST_FAILED = 3
"""Machines that failed before outcomes may speak: without failures the model that never warns
looks best."""
REPLICATES = 200


@dataclass(frozen=True, slots=True)
class Comparison:
    """What both said of the same served vectors; figures are None where nothing is known."""

    production: str
    shadow: str
    pairs: int
    machines: int
    mean_difference: float | None
    """Of probabilities, shadow minus production; intervals are 95 %, over machines."""
    mean_difference_low: float | None
    mean_difference_high: float | None
    rank_correlation: float | None
    production_elevated: float | None
    """Share of the vectors at or above the model's own `elevated` threshold."""
    shadow_elevated: float | None
    known_outcomes: int
    """Pairs whose outcome is known by now."""
    failures_ahead: int
    """Of those, pairs that a failure followed within the horizon."""
    failed_machines: int
    brier_gain: float | None
    """Production's Brier score minus the shadow's; positive = the shadow is better."""
    brier_gain_low: float | None
    brier_gain_high: float | None
    pr_auc_gain: float | None
    """Shadow minus production."""
    pr_auc_gain_low: float | None
    pr_auc_gain_high: float | None

    @property
    def is_enough(self) -> bool:
        """Whether a decision can rest on it."""
        return self.pairs >= ENOUGH_PAIRS

    @property
    def objections(self) -> list[str]:
        """Why the shadow must not take over; empty when nothing speaks against it."""
        found = []
        if self.production_elevated is not None and self.shadow_elevated is not None:
            most = MOST_ALERTS_FACTOR * self.production_elevated + MOST_ALERTS_MORE
            if self.shadow_elevated > most:
                found.append(
                    f"it calls {self.shadow_elevated:.1%} of the served vectors elevated, "
                    f"production {self.production_elevated:.1%}"
                )
        high = self.brier_gain_high if self.failed_machines >= FEWEST_FAILED else None
        if high is not None and high < 0:
            found.append(
                f"on {self.known_outcomes} served vectors with a known outcome production is "
                f"better: Brier gain {self.brier_gain:+.4f}, its 95 % interval ends at "
                f"{high:+.4f}"
            )
        return found

    @property
    def told(self) -> str:
        """One line for the record."""
        if not self.is_enough:
            return f"{self.pairs} of {ENOUGH_PAIRS} served vectors scored by both"
        outcome = (
            f"{self.known_outcomes} with a known outcome, Brier gain {self.brier_gain:+.4f}"
            if self.brier_gain is not None
            else "no outcome known yet"
        )
        return f"{self.pairs} served vectors of {self.machines} machines, {outcome}"

    def as_json(self) -> dict[str, Any]:
        """The figures, for evidence."""
        return asdict(self) | {"objections": self.objections}


def served_pairs(lake: Lake, production: Pointer, shadow: Pointer) -> pl.DataFrame:
    """machine_id, ts (µs), p, q: what production and shadow said of one served vector.

    A record that was delivered twice counts once; a vector that was asked about twice too.
    """
    answers = (
        lake.scan(PREDICTIONS)
        .filter(
            (pl.col("model_digest") == production.digest)
            & (pl.col("served_by") == Rung.PRODUCTION)
            & pl.col("features_at").is_not_null()
        )
        .select("prediction_id", "machine_id", pl.col("features_at").cast(pl.Int64), "probability")
        .unique("prediction_id")
    )
    scores = (
        lake.scan(SHADOW_SCORES)
        .filter(pl.col("digest") == shadow.digest)
        .select("prediction_id", pl.col("probability").alias("q"))
        .unique("prediction_id")
    )
    return (
        answers.join(scores, on="prediction_id")
        .select(
            "machine_id", pl.col("features_at").alias("ts"), pl.col("probability").alias("p"), "q"
        )
        .unique(["machine_id", "ts"])
        .sort("machine_id", "ts")
        .collect()
    )


def compare_models(
    releases: Releases, machine_class: MachineClass, production: Pointer, shadow: Pointer
) -> Comparison:
    """Compare two signed models of a class by what is logged of them.

    Raises `UntrustedBundle` when one of them cannot be loaded.
    """
    bundles = [
        scoring.load_bundle(releases.bundle(machine_class.name, p.version))
        for p in (production, shadow)
    ]
    return compare(
        releases.lake,
        machine_class,
        production,
        shadow,
        elevated=(bundles[0].thresholds["elevated"], bundles[1].thresholds["elevated"]),
        horizon=bundles[1].horizon_us,
    )


def compare(
    lake: Lake,
    machine_class: MachineClass,
    production: Pointer,
    shadow: Pointer,
    *,
    elevated: tuple[float, float],
    horizon: int,
) -> Comparison:
    """Compare what both said of the same served vectors; `elevated`: thresholds of both."""
    pairs = served_pairs(lake, production, shadow)
    machines = pairs["machine_id"].unique().to_list()
    events, said = (
        lake.scan(t).filter(pl.col("machine_id").is_in(machines)).collect()
        for t in (EVENTS, FEEDBACK)
    )
    labels = label_rows(pairs, events, machine_class, horizon=horizon, feedback=said)
    known = pairs.join(
        labels.select("machine_id", "ts", "label"), on=["machine_id", "ts"], how="left"
    ).sort("machine_id", "ts")
    p, q = pairs["p"].to_numpy(), pairs["q"].to_numpy()
    is_any = len(p) > 0
    between = _mean_interval(q - p, _machine_index(pairs))
    return Comparison(
        production=production.version,
        shadow=shadow.version,
        pairs=pairs.height,
        machines=len(machines),
        mean_difference=float((q - p).mean()) if is_any else None,
        mean_difference_low=between["low"],
        mean_difference_high=between["high"],
        rank_correlation=_rank_correlation(p, q),
        production_elevated=float((p >= elevated[0]).mean()) if is_any else None,
        shadow_elevated=float((q >= elevated[1]).mean()) if is_any else None,
        **_outcomes(known.drop_nulls("label")),
    )


def _outcomes(known: pl.DataFrame) -> dict[str, Any]:
    """Figures on pairs with a known outcome; the Brier gain's interval is over machines."""
    y, p, q = (known[c].to_numpy().astype(float) for c in ("label", "p", "q"))
    result: dict[str, Any] = {
        "known_outcomes": known.height,
        "failures_ahead": int(y.sum()),
        "failed_machines": known.filter(pl.col("label") == 1)["machine_id"].n_unique(),
        "brier_gain": None,
        "brier_gain_low": None,
        "brier_gain_high": None,
        "pr_auc_gain": None,
        "pr_auc_gain_low": None,
        "pr_auc_gain_high": None,
    }
    if not len(y):
        return result
    gain = (p - y) ** 2 - (q - y) ** 2
    machine = _machine_index(known)
    result["brier_gain"] = float(gain.mean())
    between = _mean_interval(gain, machine)
    result["brier_gain_low"], result["brier_gain_high"] = between["low"], between["high"]
    if 0 < y.sum() < len(y):
        ours, theirs = Ranking(y, q), Ranking(y, p)
        result["pr_auc_gain"] = ours.average_precision() - theirs.average_precision()
        if result["failed_machines"] > 1:  # with one, every draw that holds it says the same
            drawn = metrics.machine_weights(machine, REPLICATES, seed=0)[:, machine]
            between = metrics.interval(
                np.array([ours.average_precision(w) - theirs.average_precision(w) for w in drawn])
            )
            result["pr_auc_gain_low"] = between["low"]
            result["pr_auc_gain_high"] = between["high"]
    return result


def _machine_index(rows: pl.DataFrame) -> Any:  # noqa: ANN401 - an array
    return rows["machine_id"].rank("dense").cast(pl.Int64).to_numpy() - 1


def _mean_interval(values: Any, machine: Any) -> dict[str, float | None]:  # noqa: ANN401 - arrays
    """Interval of a mean, machines drawn with replacement; one machine alone has none."""
    if not len(values) or machine.max() == 0:
        return {"low": None, "high": None}
    weights = metrics.machine_weights(machine, REPLICATES, seed=0)
    sums, counts = np.bincount(machine, values), np.bincount(machine)
    between = metrics.interval((weights @ sums) / (weights @ counts))
    return {"low": between["low"], "high": between["high"]}


def _rank_correlation(p: Any, q: Any) -> float | None:  # noqa: ANN401 - arrays
    """Spearman's; None without spread."""
    ranks = [pl.Series(x).rank().to_numpy() for x in (p, q)]
    if len(p) < 2 or ranks[0].std() == 0 or ranks[1].std() == 0:  # noqa: PLR2004
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
