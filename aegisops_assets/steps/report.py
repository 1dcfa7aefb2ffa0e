"""The validation report of a bundle: one HTML file beside it, and in its MLflow run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from aegisops import anomaly, scoring, thresholds
from aegisops.modelling import metrics, remaining_life, report, training
from aegisops.modelling.fitting import Recipe
from aegisops.modelling.measure import Exam
from aegisops.modelling.rows import Floats, matrix, schedule_inputs, without
from aegisops.modelling.split import TEST
from aegisops_assets.steps.platform import Fleet, Platform
from aegisops_assets.steps.training import training_rows
from aegisops_assets.steps.validation import Evidence, in_production

FILE = "report.html"
SHAP_ROWS = 2_000
REPLICATES = 100


def write_all(platform: Platform, found: Iterable[Evidence]) -> dict[str, Path]:
    """Reports of the models just examined, by class; each goes into its MLflow run too."""
    made = {}
    found = list(found)
    beside = [e for e in found if "candidate" in e.figures]
    for evidence in found:
        if "candidate" not in evidence.figures:
            continue
        name = evidence.machine_class
        (fleet,) = platform.fleets([name])
        folder = platform.bundle_dir(name, evidence.bundle_version)
        serving, _ = in_production(platform, fleet.machine_class)
        made[name] = write(
            fleet,
            training_rows(platform, fleet),
            folder,
            evidence,
            production=serving,
            classes=beside,
        )
        platform.registry.attach(
            platform.releases().find(name, evidence.bundle_version), made[name]
        )
    return made


def write(
    fleet: Fleet,
    rows: pl.DataFrame,
    folder: Path,
    evidence: Evidence,
    *,
    production: scoring.Bundle | None = None,
    classes: Sequence[Evidence] = (),
) -> Path:
    """Write the report beside the bundle.

    Args:
        fleet: the class.
        rows: its whole training set.
        folder: the bundle.
        evidence: what validation found about it.
        production: the model it would replace, drawn beside it on the same rows.
        classes: every class examined in the same run, for the table across classes.
    """
    bundle = scoring.load_bundle(folder)
    machine_class = fleet.machine_class
    test = rows.filter(pl.col("fold") == TEST)
    exam = Exam(test, machine_class, bundle.horizon_us, replicates=REPLICATES)
    data, figures = matrix(test, machine_class), evidence.figures["candidate"]
    step = -(-len(data) // SHAP_ROWS)
    scores = scoring.score(bundle, data[::step])
    probability = scoring.probabilities(bundle, data)
    rankings = {"model": probability}
    reliabilities = {"model": report.reliability(figures["reliability"])}
    if production is not None:
        theirs = scoring.probabilities(production, data)
        rankings["production"] = theirs
        reliabilities["production"] = report.reliability(metrics.reliability(exam.y, theirs))
    if bundle.forest is not None:
        rankings["isolation forest"] = np.nan_to_num(anomaly.score(bundle.forest, data))
    if machine_class.thresholds:
        rankings["limit rules"] = thresholds.severity(machine_class, data)
    lead = metrics.lead_times(exam.timeline, probability, bundle.thresholds["high"])
    checks = [(c.name, "passed" if c.passed else "failed", c.why) for c in evidence.checks]
    sections = [
        ("Checks", report.table(("check", "result", "why"), checks)),
        ("Figures on the test fold", _figures(figures)),
        (
            "Curves",
            report.chart(
                "precision over recall",
                {n: report.precision_recall(exam.y, s) for n, s in rankings.items()},
                x="recall",
                y="precision",
            )
            + report.chart(
                "receiver operating characteristic",
                {n: report.roc(exam.y, s) for n, s in rankings.items()},
                x="false positive rate",
                y="true positive rate",
                diagonal=True,
            )
            + report.chart(
                "reliability",
                reliabilities,
                x="stated probability",
                y="share that failed",
                diagonal=True,
                marks=True,
            )
            + report.histogram(
                "warning before each failure found at `high`", lead / machine_class.hour, x="hours"
            ),
        ),
        ("What the model looks at", _shap(bundle, scores.contributions)),
        ("Failure modes", _modes(bundle, production, exam, data)),
        ("All classes of this run", _classes(classes or [evidence])),
        ("Without the maintenance calendar", _ablation(bundle, fleet, rows, exam, figures)),
        ("Remaining life", _life(bundle, fleet, test)),
    ]
    about = {
        "class": machine_class.name,
        "version": bundle.version,
        "digest": evidence.digest,
        "horizon": f"{bundle.horizon_us / machine_class.hour:g} h (cycles on a cycle clock)",
        "test rows": test.height,
        "test machines": test["machine_id"].n_unique(),
        "failures": figures["failures"],
        "share of rows before a failure": evidence.figures["prevalence"],
    }
    path = folder.with_name(FILE)
    path.write_text(report.page(f"Validation of {bundle.name} {bundle.version}", about, sections))
    return path


def _figures(figures: dict[str, Any]) -> str:
    rows = []
    for name, value in figures.items():
        if isinstance(value, (int, float)) or value is None:
            between = figures["intervals"].get(name) or {}
            rows.append((name, value, between.get("low"), between.get("high")))
    return report.table(("figure", "value", "95 % from", "to"), rows) + report.note(
        "Intervals are over machines. Precision, recall, F1 and lead time are at `elevated`."
    )


def _shap(bundle: scoring.Bundle, contributions: Floats) -> str:
    mean = np.abs(contributions).mean(axis=0)
    order = np.argsort(-mean)[:15]
    return report.bars(
        "mean size of the SHAP value over test rows",
        {bundle.vector[i]: float(mean[i]) for i in order},
        "log-odds",
    )


def _modes(
    bundle: scoring.Bundle,
    production: scoring.Bundle | None,
    exam: Exam,
    data: Any,  # noqa: ANN401 - a matrix
) -> str:
    if not bundle.modes:
        return report.note("The class has no failure mode with an example.")
    models = {"model": bundle} | ({} if production is None else {"production": production})
    keys = ("positive_rows", "pr_auc", "precision", "recall", "f1")
    rows = []
    for name, model in models.items():
        found = exam.per_mode(
            model.modes,
            scoring.score(model, data).mode_probability,
            dict(model.manifest["mode_thresholds"]),
        )
        rows += [(mode, name, *(entry.get(k) for k in keys)) for mode, entry in found.items()]
    rows.sort(key=lambda row: str(row[0]))  # stable: the model before production
    return report.table(("mode", "by", *keys), rows)


def _classes(found: Sequence[Evidence]) -> str:
    """Candidate and production of every class, each on the class's own test rows."""
    keys = ("failures", "pr_auc", "precision", "recall", "median_lead_time_h", "calibration_error")
    rows = [
        (e.machine_class, name, *(e.figures[part].get(k) for k in keys))
        for e in found
        for name, part in (("model", "candidate"), ("production", "production"))
        if part in e.figures
    ]
    return report.table(("class", "by", *keys), rows) + report.note(
        "Precision, recall and lead time are at each model's own `elevated`."
    )


def _ablation(
    bundle: scoring.Bundle,
    fleet: Fleet,
    rows: pl.DataFrame,
    exam: Exam,
    figures: dict[str, Any],
) -> str:
    dropped = schedule_inputs(fleet.machine_class)
    kept = without(fleet.machine_class, dropped)
    if not dropped or not kept:
        return report.note("The class has no such inputs.")
    recipe = dict(bundle.manifest["recipe"])
    recipe.pop("chosen_rounds")
    recipe["ignored"] = tuple(recipe["ignored"])
    model = training.fit(
        rows,
        fleet.machine_class,
        horizon=bundle.horizon_us,
        inputs=kept,
        recipe=Recipe(**recipe),
    )
    alone, between = exam.ranking(model.probability(matrix(exam.rows, fleet.machine_class, kept)))
    return report.table(
        ("inputs", "PR-AUC", "95 % from", "to"),
        [
            ("all", figures["pr_auc"], *figures["intervals"]["pr_auc"].values()),
            (f"without {', '.join(dropped)}", alone["pr_auc"], *between["pr_auc"].values()),
        ],
    )


def _life(bundle: scoring.Bundle, fleet: Fleet, test: pl.DataFrame) -> str:
    if bundle.life is None:
        return report.note("Too few failures for an interval, or none that shows a trend.")
    found = remaining_life.examine(bundle.life, test, fleet.machine_class, bundle.horizon_us)
    rows = [("stated coverage", bundle.life.coverage), *found.items()]
    return report.table(("figure", "value"), rows)
