"""What a drift report compares: rows per machine and interval, and what was done to machines."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import polars as pl

from aegisops import scoring, signing
from aegisops.errors import AegisError
from aegisops.machines import ChannelKind, MachineClass, Statistic
from aegisops.machines.model import LIFETIME_STATISTICS
from aegisops.modelling import drift
from aegisops.modelling.drift import Kind
from aegisops.modelling.rows import matrix
from aegisops.names import REGIME_CHANGE, EventType, Outcome
from aegisops.schemas.tables import EVENTS, FEATURES, FEEDBACK, TILES
from aegisops_assets.steps.platform import Fleet, Platform
from aegisops_assets.steps.promotion import POINTER

LOG_ODDS, COVERAGE = "log_odds", "coverage"
MACHINES_AT_ONCE = 50
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def reach(platform: Platform, fleet: Fleet, interval: int) -> tuple[int, int] | None:
    """First and last interval that has features."""
    of_class = pl.col("machine_class") == fleet.machine_class.name
    ts = pl.col("ts").cast(pl.Int64)
    times = platform.lake.scan(FEATURES).filter(of_class)
    first, last = times.select(ts.min().alias("first"), ts.max().alias("last")).collect().row(0)
    return None if first is None else (first // interval, last // interval)


def production(
    platform: Platform, machine_class: MachineClass
) -> tuple[scoring.Bundle | None, str]:
    """The verified bundle that serves, or why there is none to compare the scores of."""
    path = platform.settings.bundles_dir / machine_class.name / POINTER
    try:
        folder = platform.bundle_dir(machine_class.name, json.loads(path.read_text())["version"])
        signing.verify(folder, platform.keys().public)
        bundle = scoring.load_bundle(folder)
    except (OSError, ValueError, KeyError):
        return None, "no model is in production"
    except AegisError as error:
        return None, str(error)
    if bundle.vector != machine_class.vector:
        return None, f"production uses {bundle.feature_set}, not {machine_class.feature_set}"
    return bundle, ""


def rows_per_interval(
    platform: Platform, fleet: Fleet, bundle: scoring.Bundle | None, interval: int, since: int
) -> pl.DataFrame:
    """Every compared column, one row per machine and interval, from `since` (µs) on."""
    ids, parts = fleet.machine_ids, []
    begin = EPOCH + timedelta(microseconds=max(since, 0))
    channels = sorted(fleet.machine_class.channels)
    for i in range(0, len(ids), MACHINES_AT_ONCE):
        group = pl.col("machine_id").is_in(ids[i : i + MACHINES_AT_ONCE])
        recent = group & (pl.col("date") >= begin.date())
        rows = (
            platform.lake.scan(FEATURES)
            .filter(recent & (pl.col("machine_class") == fleet.machine_class.name))
            .filter(pl.col("ts") >= begin)
            .select("machine_id", pl.col("ts").cast(pl.Int64), "vector", COVERAGE)
            .collect()
        )
        data = matrix(rows, fleet.machine_class)
        columns = dict(zip(fleet.machine_class.vector, data.T, strict=True))
        if bundle is not None and rows.height:
            # Log-odds: probabilities have ties wherever the calibration is flat.
            columns[LOG_ODDS] = scoring.margins(bundle.failure, data)
        wide = rows.select("machine_id", "ts", COVERAGE, **columns)
        medians = drift.per_interval(wide, [COVERAGE, *columns], interval)
        bad = _bad_shares(platform.lake.scan(TILES).filter(recent), channels, interval, begin)
        parts.append(medians.join(bad, on=["machine_id", "interval"], how="left"))
    return pl.concat(parts, how="diagonal")


def context(platform: Platform, fleet: Fleet, interval: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Repairs and regime changes: machine_id and interval of each."""
    at = (pl.col("ts").cast(pl.Int64) // interval).alias("interval")
    ours = pl.col("machine_id").is_in(fleet.machine_ids)
    events = (
        platform.lake.scan(EVENTS)
        .filter(ours & pl.col("type").is_in([EventType.MAINTENANCE, EventType.FAILURE]))
        .select("machine_id", at, "code")
        .collect()
    )
    planned = (
        platform.lake.scan(FEEDBACK)
        .filter(ours & (pl.col("outcome") == Outcome.PLANNED_WORK))
        .select("machine_id", at)
        .collect()
    )
    is_regime = pl.col("code") == REGIME_CHANGE
    repairs, regimes = (events.filter(f).drop("code") for f in (~is_regime, is_regime))
    return pl.concat([repairs, planned]), regimes


def compared_names(
    machine_class: MachineClass, bundle: scoring.Bundle | None
) -> dict[Kind, list[str]]:
    """What is compared, by kind. What only grows with time, by its definition, cannot drift."""
    counters = {n for n, c in machine_class.channels.items() if c.kind is ChannelKind.COUNTER}
    grows = {
        s.name
        for s in machine_class.features
        if s.statistic in LIFETIME_STATISTICS
        or (s.channel in counters and s.statistic is Statistic.LAST)
    }
    return {
        Kind.DATA: [name for name in machine_class.vector if name not in grows],
        Kind.PREDICTION: [] if bundle is None else [LOG_ODDS],
        Kind.QUALITY: [COVERAGE, *(f"{name}_bad_share" for name in sorted(machine_class.channels))],
    }


def _bad_shares(
    tiles: pl.LazyFrame, channels: list[str], interval: int, begin: datetime
) -> pl.DataFrame:
    """Per machine and interval, the share of each channel's values that were not good."""
    shares = (
        pl.col("n_bad").filter(pl.col("channel") == name).sum()
        / (pl.col("n") + pl.col("n_bad")).filter(pl.col("channel") == name).sum()
        for name in channels
    )
    return (
        tiles.filter(pl.col("tile_start") >= begin)
        .group_by("machine_id", (pl.col("tile_start").cast(pl.Int64) // interval).alias("interval"))
        .agg(
            share.fill_nan(None).alias(f"{name}_bad_share")
            for share, name in zip(shares, channels, strict=True)
        )
        .collect()
    )
