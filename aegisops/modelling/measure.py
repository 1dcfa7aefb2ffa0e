"""One model's figures on one set of test rows, with intervals. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from aegisops.machines import MachineClass
from aegisops.modelling import metrics
from aegisops.modelling.metrics import Labels, Ranking, Timeline
from aegisops.modelling.rows import Floats, failure_times, mode_outcomes, outcomes

Json = dict[str, Any]


@dataclass(frozen=True)
class Exam:
    """Test rows and the questions put to every model. Rows are sorted by machine and time."""

    rows: pl.DataFrame
    machine_class: MachineClass
    horizon: int
    alerts_per_machine_week: float = 1.0
    replicates: int = 200
    seed: int = 0
    known: Labels | None = None
    """[n] False where the outcome is not known and the label is only a convention."""

    @cached_property
    def y(self) -> Labels:
        """Labels [n]."""
        return outcomes(self.rows)

    @cached_property
    def timeline(self) -> Timeline:
        """Times of the rows and of the failures they look ahead to."""
        machine = self.rows["machine_id"].rank("dense").cast(pl.Int64).to_numpy() - 1
        ahead = failure_times(self.rows, self.machine_class)
        pairs = np.unique(np.stack([machine, ahead], axis=1)[ahead >= 0], axis=0)
        return Timeline(
            machine=machine,
            ts=self.rows["ts"].to_numpy(),
            failure_machine=pairs[:, 0],
            failure_ts=pairs[:, 1],
            horizon=self.horizon,
            step=self.machine_class.step,
        )

    @cached_property
    def _weights(self) -> Floats:
        return metrics.machine_weights(self.timeline.machine, self.replicates, self.seed)

    def any_failure(self, probability: Floats, threshold: float) -> Json:
        """All figures of `any` failure at one alarm threshold; `intervals` by metric name."""
        result, intervals = self.ranking(probability)
        y = self.y
        result["brier"] = metrics.brier(y, probability)
        result["calibration_error"] = metrics.calibration_error(y, probability)
        result |= self._row_wise(probability, threshold, intervals)
        result["threshold"] = threshold
        result |= self.alerting(probability, threshold, intervals)
        if self.known is not None:
            ranking = Ranking(y[self.known], probability[self.known])
            result["known_outcomes"] = {
                "rows": int(self.known.sum()),
                "pr_auc": ranking.average_precision(),
                "roc_auc": ranking.roc_auc(),
            }
        result["reliability"] = metrics.reliability(y, probability)
        return {**result, "intervals": intervals}

    def ranking(self, score: Floats) -> tuple[Json, Json]:
        """PR-AUC and ROC-AUC of any score, and their intervals."""
        ranking = Ranking(self.y, score)
        figures = {"pr_auc": ranking.average_precision(), "roc_auc": ranking.roc_auc()}
        return figures, {
            "pr_auc": self._interval(ranking.average_precision),
            "roc_auc": self._interval(ranking.roc_auc),
        }

    def _interval(self, metric: Callable[[Floats], float]) -> Json:
        """Interval of a metric of row weights [n]."""
        machine = self.timeline.machine
        return metrics.interval(np.array([metric(w[machine]) for w in self._weights]))

    def _row_wise(self, probability: Floats, threshold: float, intervals: Json) -> Json:
        """Precision, recall, F1; their intervals and Brier's come from sums per machine."""
        y, machine = self.y, self.timeline.machine
        alarm = probability >= threshold
        rows, squares, hits, alarms, positives = (
            self._weights @ np.bincount(machine, column)
            for column in (
                np.ones(len(y)),
                (probability - y) ** 2,
                (alarm & (y == 1)).astype(float),
                alarm.astype(float),
                y.astype(float),
            )
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            intervals["brier"] = metrics.interval(squares / rows)
            intervals["precision"] = metrics.interval(hits / alarms)
            intervals["recall"] = metrics.interval(hits / positives)
            intervals["f1"] = metrics.interval(2 * hits / (alarms + positives))
        figures = metrics.precision_recall_f1(y, probability, threshold)
        return dict(zip(("precision", "recall", "f1"), figures, strict=True))

    def alerting(self, probability: Floats, threshold: float, intervals: Json) -> Json:
        """Figures per failure: recall within the alert budget, lead time, false alerts."""
        line = self.timeline
        within = metrics.budget_threshold(line, probability, self.alerts_per_machine_week)
        at_budget = metrics.lead_times(line, probability, within)
        lead = metrics.lead_times(line, probability, threshold)
        hour = self.machine_class.hour
        alerts = metrics.alerts(line, probability, threshold)
        false = metrics.false_alerts(line, probability, threshold)
        drawn = self._weights[:, line.failure_machine]
        found = np.isfinite(at_budget)
        intervals["recall_at_budget"] = metrics.interval(
            np.array([_share(found, w) for w in drawn])
        )
        intervals["median_lead_time_h"] = metrics.interval(
            np.array([_median(lead / hour, w) for w in drawn])
        )
        return {
            "recall_at_budget": _share(found, np.ones(len(found))),
            "alerts_per_machine_week": self.alerts_per_machine_week,
            "median_lead_time_h": _median(lead / hour, np.ones(len(lead))),
            "failures": len(lead),
            "failures_found": int(np.isfinite(lead).sum()),
            "alerts": len(alerts),
            "false_alerts": false,
            "false_alerts_per_machine_week": false / line.machine_weeks,
        }

    def per_mode(
        self, modes: Sequence[str], probability: Floats, thresholds: dict[str, float]
    ) -> Json:
        """Figures per failure mode; a mode the model never saw is listed with nulls."""
        result: Json = {}
        for mode in self.machine_class.failure_modes:
            y = mode_outcomes(self.rows, [mode])[:, 0]
            entry: Json = {"positive_rows": int(y.sum()), "pr_auc": None, "intervals": {}}
            if mode in modes:
                p = probability[:, list(modes).index(mode)]
                ranking = Ranking(y, p)
                precision, recall, f1 = metrics.precision_recall_f1(y, p, thresholds[mode])
                entry |= {
                    "pr_auc": ranking.average_precision(),
                    "roc_auc": ranking.roc_auc(),
                    "brier": metrics.brier(y, p),
                    "precision": precision,
                    "recall": recall,
                    "f1": f1,
                    "threshold": thresholds[mode],
                }
                entry["intervals"]["pr_auc"] = self._interval(ranking.average_precision)
            result[mode] = entry
        return result


def _share(found: Labels, w: Floats) -> float:
    total = float(w.sum())
    return float((w * found).sum()) / total if total else metrics.NAN


def _median(values: Floats, w: Floats) -> float:
    """Median of the finite values, each counted w times."""
    known = np.isfinite(values)
    repeated = np.repeat(values[known], w[known].astype(np.int64))
    return float(np.median(repeated)) if repeated.size else metrics.NAN
