"""gold/features + gold/labels → ml/training_set → a signed, registered candidate."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from aegisops import signing
from aegisops.machines.model import US_PER_SECOND
from aegisops.modelling import bundle, remaining_life, split, training
from aegisops.modelling.anomaly import AnomalyModel
from aegisops.modelling.fitting import Recipe
from aegisops.modelling.remaining_life import LifeModel
from aegisops.modelling.rows import labelled
from aegisops.modelling.search import Trial, search
from aegisops.modelling.training import Progress
from aegisops.registry import Version
from aegisops.schemas.tables import (
    EVENTS,
    FEATURES,
    LABELS,
    READINGS,
    TILES,
    TRAINING_SET,
    WAVEFORMS,
)
from aegisops_assets.steps.platform import Fleet, Platform


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """One class's rows as written."""

    machine_class: str
    version: int
    folds: dict[str, dict[str, int]]
    """Fold → rows and rows before a failure."""
    skipped: str = ""
    """Why the class has no training set."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trained, signed and registered bundle."""

    machine_class: str
    bundle: Path
    digest: str
    registered: Version
    figures: dict[str, float]


def build_set(
    platform: Platform, *, classes: Iterable[str] = (), seed: int = 0
) -> list[TrainingSet]:
    """Labelled rows with their fold: by machine and time, an embargo of one horizon between.

    A class with too few failures is left out, with the reason; its old rows are removed, so that
    nothing trains on them. Raises `TooFewFailures` when no class is left.
    """
    lake, made = platform.lake, []
    for fleet in platform.fleets(classes):
        name = fleet.machine_class.name
        pinned = {t: lake.version(t) for t in (FEATURES, LABELS)}
        features, labels = (
            lake.scan(t, v).filter(pl.col("machine_class") == name).collect()
            for t, v in pinned.items()
            if v >= 0
        )
        if labels.is_empty():
            continue
        embargo = int(labels["horizon_us"][0])
        predicate = f"machine_class = '{name}'"
        try:
            rows = split.folds(labelled(features, labels), fleet.machine_class, embargo, seed)
        except split.TooFewFailures as error:
            version = lake.overwrite(
                TRAINING_SET, lake.scan(TRAINING_SET).collect().clear(), predicate
            )
            made.append(TrainingSet(name, version, {}, skipped=str(error)))
            continue
        version = lake.overwrite(
            TRAINING_SET,
            rows.with_columns(
                pl.lit(name).alias("machine_class"), pl.col("ts").cast(pl.Datetime("us", "UTC"))
            ),
            predicate=predicate,
            transactions={f"{t.name}/{name}": v for t, v in pinned.items()},
        )
        counts = rows.group_by("fold").agg(pl.len(), pl.col("label").sum()).sort("fold")
        folds = {fold: {"rows": n, "positive": p} for fold, n, p in counts.iter_rows()}
        made.append(TrainingSet(name, version, folds))
    if made and all(s.skipped for s in made):
        raise split.TooFewFailures("; ".join(s.skipped for s in made))
    return made


def training_rows(platform: Platform, fleet: Fleet) -> pl.DataFrame:
    """The class's current training set, times as int µs, sorted by machine and time."""
    return (
        platform.lake.scan(TRAINING_SET)
        .filter(pl.col("machine_class") == fleet.machine_class.name)
        .with_columns(pl.col("ts").cast(pl.Int64))
        .sort("machine_id", "ts")
        .collect()
    )


def train(
    platform: Platform,
    *,
    classes: Iterable[str] = (),
    recipe: Recipe | None = None,
    progress: Progress = lambda *_: None,
) -> list[Candidate]:
    """Fit, write, sign and register a candidate per class, with its forest of healthy operation.

    The bundle's version and time come from its rows, so that the same data gives the same bytes
    and the same digest; a model that is already there is not registered twice.
    """
    from aegisops_assets.steps import anomaly

    made = []
    for fleet in platform.fleets(classes):
        rows = training_rows(platform, fleet)
        if rows.is_empty():
            continue
        span = horizon(platform, fleet)
        trials = [Trial(recipe, float("nan"))] if recipe else search(rows, fleet.machine_class)
        model = training.fit(
            rows, fleet.machine_class, horizon=span, recipe=trials[0].recipe, progress=progress
        )
        seed = model.recipe.seed
        forest = anomaly.forest_of(platform, fleet, rows, span, seed)
        life = remaining_life.fit(
            rows, fleet.machine_class, horizon=span, ignored=model.recipe.ignored, seed=seed
        )
        newest = datetime.fromtimestamp(int(rows["ts"].to_numpy().max()) // US_PER_SECOND, UTC)
        versions = _data_versions(platform, fleet)
        version = f"{newest:%Y%m%d}-{_fingerprint(rows, model, forest, life, versions)}"
        folder = platform.bundle_dir(fleet.machine_class.name, version)
        digest = bundle.write(
            model,
            folder,
            version=version,
            trained_at=f"{newest:%Y-%m-%dT%H:%M:%SZ}",
            data_versions=versions,
            metrics=model.training,
            anomaly_model=forest,
            life_model=life,
        )
        made.append(
            _register(
                platform, fleet, folder, digest, model, forest=forest, life=life, trials=trials
            )
        )
    return made


def _register(
    platform: Platform,
    fleet: Fleet,
    folder: Path,
    digest: str,
    model: training.Model,
    *,
    forest: AnomalyModel | None,
    life: LifeModel | None,
    trials: Sequence[Trial],
) -> Candidate:
    name, keys = fleet.machine_class.name, platform.keys()
    signing.sign(folder, keys.private)
    signing.verify(folder, keys.public)
    known = [v for v in platform.registry.history(name) if v.digest == digest]
    registered = known[0] if known else None
    figures = dict(model.training)
    figures |= {f"recipe_{i}_pr_auc": trial.pr_auc for i, trial in enumerate(trials)}
    if forest is not None:
        figures |= {f"anomaly_{k}": forest.about[k] for k in ("unseen_pr_auc", "unseen_roc_auc")}
    if life is not None:
        figures |= {f"remaining_life_{k}": v for k, v in life.about["unseen"].items()}
    if registered is None:
        registered = platform.registry.register(
            name,
            folder,
            digest=digest,
            metrics={k: v for k, v in figures.items() if v == v},  # noqa: PLR0124 - NaN
            parameters=model.recipe.parameters() | {"rounds": model.rounds},
            tags={
                "bundle_version": folder.parent.name,
                "feature_set": fleet.machine_class.feature_set,
            },
        )
    return Candidate(name, folder, digest, registered, figures)


def _data_versions(platform: Platform, fleet: Fleet) -> dict[str, int]:
    """Table → version the training rows were made from; live writers have moved on since."""
    lake, name = platform.lake, fleet.machine_class.name
    trained = lake.open(TRAINING_SET)
    found = {t.name: trained.transaction_version(f"{t.name}/{name}") for t in (FEATURES, LABELS)}
    vectors = lake.open(FEATURES, found[FEATURES.name])
    found[TILES.name] = vectors.transaction_version(f"{TILES.name}/{name}")
    tiles = lake.open(TILES, found[TILES.name])
    found |= {t.name: tiles.transaction_version(t.name) for t in (READINGS, WAVEFORMS, EVENTS)}
    return {name: version for name, version in found.items() if version is not None}


def horizon(platform: Platform, fleet: Fleet) -> int:
    """The labels' horizon in µs (ticks of the class's clock)."""
    labels = (
        platform.lake.scan(LABELS)
        .filter(pl.col("machine_class") == fleet.machine_class.name)
        .select("horizon_us")
        .head(1)
        .collect()
    )
    return int(labels["horizon_us"][0])


def _fingerprint(
    rows: pl.DataFrame,
    model: training.Model,
    forest: AnomalyModel | None,
    life: LifeModel | None,
    data_versions: dict[str, int],
) -> str:
    whole = hashlib.sha256(rows.hash_rows(seed=0).to_numpy().tobytes())
    settings: dict[str, Any] = {
        "class": model.machine_class.model_dump(mode="json"),
        "recipe": asdict(model.recipe),
        "horizon": model.horizon,
        "data_versions": data_versions,
        "anomaly": None if forest is None else {k: forest.about[k] for k in ("trees", "samples")},
        "life": None if life is None else {k: life.about[k] for k in ("reach_horizons", "rounds")},
    }
    whole.update(json.dumps(settings, sort_keys=True).encode())
    return whole.hexdigest()[:12]
