"""The model loop as assets: training set → candidate → validation → production."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from aegisops import names
from aegisops.schemas.tables import FEATURES, LABELS, TRAINING_SET
from aegisops_assets import checks
from aegisops_assets.keys import OWNERS, key, table_metadata
from aegisops_assets.steps.platform import Platform

VALIDATION_CHECKS = {
    "signature_valid": "the bundle is signed, unaltered, and the registered one",
    "beats_prevalence": "PR-AUC on unseen machines and times is above chance",
    "not_worse_than_limit_rules": "paired on the same rows, the class's limit rules are not better",
    "calibrated": "a stated probability comes true as often as it says",
    "not_worse_than_production": "paired on the same rows, production is not better",
}


class ModelSelection(dg.Config):
    """Machine classes to work on; all when empty."""

    classes: list[str] = []  # noqa: RUF012 - pydantic copies defaults


@dg.asset(
    key=key(TRAINING_SET.name),
    deps=[key(FEATURES.name), key(LABELS.name)],
    group_name="ml",
    kinds={"polars", "deltalake"},
    owners=OWNERS,
    description=TRAINING_SET.doc,
    metadata=table_metadata(TRAINING_SET),
    check_specs=checks.specs(TRAINING_SET),
    code_version="1",
)
def training_set(
    context: dg.AssetExecutionContext,
    config: ModelSelection,
    platform: dg.ResourceParam[Platform],
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Labelled rows with their fold: split by machine and time, one horizon of embargo."""
    from aegisops_assets.steps import training

    sets = training.build_set(platform, classes=config.classes)
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": sum(f["rows"] for s in sets for f in s.folds.values()),
            **{
                s.machine_class: dg.MetadataValue.json(
                    {"skipped": s.skipped} if s.skipped else s.folds
                )
                for s in sets
            },
        }
    )
    yield from checks.run(platform, TRAINING_SET, context.instance)


@dg.asset(
    key=key(names.ML_ANOMALY_MODEL),
    deps=[key(TRAINING_SET.name)],
    group_name="ml",
    kinds={"scikitlearn"},
    owners=OWNERS,
    description="An Isolation Forest per class, fitted on healthy rows alone: the stand-in when "
    "the failure model cannot answer. It goes into the same signed bundle.",
    code_version="1",
)
def anomaly_model(
    config: ModelSelection, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult[Any]:
    """Fit, keep, and show how it tells test rows apart."""
    from aegisops_assets import plots
    from aegisops_assets.steps import anomaly

    made = anomaly.build(platform, classes=config.classes)
    fitted = [f for f in made if f.model is not None]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": sum(f.figures["rows"] for f in fitted),
            **{f.machine_class: dg.MetadataValue.json(f.figures) for f in made},
            **{
                f"{f.machine_class}_scores": dg.MetadataValue.md(
                    plots.scores(f.healthy, f.before_failure, f.usual)
                )
                for f in fitted
            },
        }
    )


@dg.asset(
    key=key(names.ML_FAILURE_MODEL),
    # One signature covers both models, so the bundle is written when both are there.
    deps=[key(TRAINING_SET.name), key(names.ML_ANOMALY_MODEL)],
    group_name="ml",
    kinds={"xgboost", "scikitlearn", "mlflow"},
    owners=OWNERS,
    description="A calibrated XGBoost model per class, signed in one bundle with the forest of "
    "`ml/anomaly_model`; registered as `candidate`.",
    code_version="3",
    tags={"aegis/heavy": "true"},
)
def failure_model(
    config: ModelSelection, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult[Any]:
    """Train, sign, register."""
    from aegisops_assets.steps import training

    made = training.train(platform, classes=config.classes)
    return dg.MaterializeResult(
        metadata={
            c.machine_class: dg.MetadataValue.json(
                {
                    "bundle": c.bundle.parent.name,
                    "digest": c.digest,
                    "mlflow_version": c.registered.version,
                    "mlflow_run": c.registered.run_id,
                    **c.figures,
                }
            )
            for c in made
        }
    )


@dg.asset(
    key=key(names.ML_VALIDATION),
    deps=[key(names.ML_FAILURE_MODEL), key(names.ML_ANOMALY_MODEL), key(TRAINING_SET.name)],
    group_name="ml",
    kinds={"xgboost"},
    owners=OWNERS,
    description="The candidate's figures on machines and times it has not seen.",
    check_specs=[
        dg.AssetCheckSpec(
            name, asset=key(names.ML_VALIDATION), blocking=True, description=description
        )
        for name, description in VALIDATION_CHECKS.items()
    ],
    code_version="1",
)
def validation(
    config: ModelSelection, platform: dg.ResourceParam[Platform]
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Examine the candidate; the evidence lies beside its bundle."""
    from aegisops_assets import plots
    from aegisops_assets.steps import report
    from aegisops_assets.steps import validation as step

    found = step.validate(platform, classes=config.classes)
    reports = report.write_all(platform, found)
    yield dg.MaterializeResult(
        metadata={
            **{e.machine_class: dg.MetadataValue.json(_headline(e.figures)) for e in found},
            **{f"{name}_report": dg.MetadataValue.path(path) for name, path in reports.items()},
            **{
                f"{e.machine_class}_reliability": dg.MetadataValue.md(plots.reliability(e.figures))
                for e in found
                if "candidate" in e.figures
            },
        }
    )
    for name, description in VALIDATION_CHECKS.items():
        said = {e.machine_class: c for e in found for c in e.checks if c.name == name}
        yield dg.AssetCheckResult(
            check_name=name,
            passed=all(check.passed for check in said.values()),
            severity=dg.AssetCheckSeverity.ERROR,
            description="; ".join(f"{m}: {c.why}" for m, c in said.items()) or description,
        )


@dg.asset(
    key=key(names.ML_SHADOW),
    deps=[key(names.ML_VALIDATION)],
    group_name="ml",
    kinds={"mlflow"},
    owners=OWNERS,
    description="The model that scores beside production without a say: a validated candidate, "
    "until enough served vectors were scored by both. The first model of a class needs none.",
    code_version="1",
)
def shadow(
    context: dg.AssetExecutionContext,
    config: ModelSelection,
    platform: dg.ResourceParam[Platform],
) -> dg.MaterializeResult[Any]:
    """Move the alias, record why."""
    from aegisops_assets.steps import shadow as step

    made = step.place(
        platform, decided_by=f"dagster run {context.run.run_id}", classes=config.classes
    )
    return dg.MaterializeResult(
        metadata={
            s.machine_class: dg.MetadataValue.json(
                {"version": s.version, "action": s.action, "why": s.why}
            )
            for s in made
        }
    )


@dg.asset(
    key=key(names.ML_PRODUCTION),
    deps=[key(names.ML_SHADOW)],
    group_name="ml",
    kinds={"mlflow"},
    owners=OWNERS,
    description="The promoted model per class. Verifies signature and evidence again itself.",
    check_specs=[
        dg.AssetCheckSpec(
            "promoted",
            asset=key(names.ML_PRODUCTION),
            description="no model was refused; a refusal is recorded with its reason",
        )
    ],
    code_version="1",
)
def production(
    context: dg.AssetExecutionContext,
    config: ModelSelection,
    platform: dg.ResourceParam[Platform],
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Promote what the evidence allows, and record why."""
    from aegisops_assets.steps import promotion

    made = promotion.promote(
        platform, decided_by=f"dagster run {context.run.run_id}", classes=config.classes
    )
    yield dg.MaterializeResult(
        metadata={
            d.machine_class: dg.MetadataValue.json(
                {
                    "version": d.model_version,
                    "digest": d.digest,
                    "promoted": d.promoted,
                    "is_waiting": d.is_waiting,
                    "reason": d.reason,
                }
            )
            for d in made
        }
    )
    refused = [d for d in made if not d.promoted and not d.is_waiting]
    yield dg.AssetCheckResult(
        check_name="promoted",
        passed=not refused,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(f"{d.machine_class}: {d.reason}" for d in refused)
        or "; ".join(f"{d.machine_class}: {d.reason}" for d in made),
    )


def _headline(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures people ask for first; the rest is in the evidence file."""
    return {
        name: value
        if not isinstance(value, dict)
        else {k: v for k, v in value.items() if k != "reliability"}
        for name, value in figures.items()
    }
