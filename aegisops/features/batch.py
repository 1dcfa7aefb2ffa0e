"""Drives the algebra over the lake: bronze rows → values → tiles → feature vectors. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from aegisops.features import definitions, tiles, windows
from aegisops.features.tiles import FIELDS, Floats, Ints
from aegisops.features.windows import Series
from aegisops.machines.model import (
    COUNTER_STATISTICS,
    FeatureSpec,
    MachineClass,
    Statistic,
)
from aegisops.names import Quality

Frame = pl.DataFrame | pl.LazyFrame
Attributes = Mapping[str, Mapping[str, str | float | None]]

VALUES_SCHEMA = {
    # Categories are made before waveforms explode to samples: 32 times fewer strings to hash.
    "machine_id": pl.Categorical,
    "channel": pl.Categorical,
    "ts": pl.Int64,
    "value": pl.Float64,
    "quality": pl.Int8,
}


def values_from_bronze(
    readings: Frame, waveforms: Frame, events: Frame, machine_class: MachineClass
) -> pl.DataFrame:
    """Long values [machine_id, channel, ts (µs), value, quality] of the class's channels.

    A waveform becomes one value per sample, an event the value 1 on its event channel.
    """
    scalars = (
        readings.lazy()
        .filter(pl.col("channel").is_in(list(machine_class.channels)))
        .select(
            pl.col("machine_id").cast(pl.Categorical),
            pl.col("channel").cast(pl.Categorical),
            pl.col("ts").cast(pl.Int64),
            "value",
            "quality",
        )
    )
    captures = (
        waveforms.lazy()
        .filter(pl.col("channel").is_in(list(machine_class.channels)))
        .select(
            pl.col("machine_id").cast(pl.Categorical),
            pl.col("channel").cast(pl.Categorical),
            pl.col("ts").cast(pl.Int64),
            "period_us",
            "values",
            "quality",
            pl.int_ranges(pl.col("values").list.len()).alias("position"),
        )
        # Sorting captures is cheap, sorting their samples is not; tiles.build notices the order.
        .sort(pl.col("machine_id").to_physical(), "ts")
        .explode("values", "position")
        .with_columns(
            (pl.col("ts") + pl.col("position") * pl.col("period_us")).alias("ts"),
            pl.col("values").alias("value"),
        )
        .select(VALUES_SCHEMA.keys())
    )
    happened = [_event_values(events, machine_class, name) for name in machine_class.events]
    parts = [p.cast(VALUES_SCHEMA) for p in (scalars, captures, *happened)]  # type: ignore[arg-type]
    return pl.concat(pl.collect_all(parts))


def _event_values(events: Frame, machine_class: MachineClass, name: str) -> pl.LazyFrame:
    event = machine_class.events[name]
    wanted = pl.col("type") == event.type
    if event.code is not None:
        wanted &= pl.col("code") == event.code
    return (
        events.lazy()
        .filter(wanted)
        .select(
            "machine_id",
            pl.lit(name).alias("channel"),
            pl.col("ts").cast(pl.Int64),
            pl.lit(1.0).alias("value"),
            pl.lit(int(Quality.GOOD), pl.Int8).alias("quality"),
        )
    )


def tiles_from_values(values: pl.DataFrame, machine_class: MachineClass) -> pl.DataFrame:
    """Rows of silver/tiles (without `date`) at each channel's base tile; sorted by its keys."""
    lengths = {
        name: machine_class.base_tile(name)
        for name in (*machine_class.channels, *machine_class.events)
        if name in machine_class.statistics
    }
    built = tiles.build(values, lengths)
    return built.with_columns(pl.col("tile_start").cast(pl.Datetime("us", "UTC")))


def features_from_tiles(
    tile_rows: pl.DataFrame,
    machine_class: MachineClass,
    attributes: Attributes,
    since: int | None = None,
) -> pl.DataFrame:
    """Rows of gold/features (without `date`): one per machine and step that holds a reading.

    Args:
        tile_rows: silver/tiles of these machines; lifetime statistics need their whole history.
        machine_class: decides the vector.
        attributes: fixed properties by machine id.
        since: only rows with ts > since (µs); all when None.

    A row's ts is the time of the step's last value, so every value of its tiles is at or before it.
    """
    points = (
        tile_rows.lazy()
        .filter(pl.col("n") > 0)
        .with_columns(
            pl.col("tile_start").cast(pl.Int64).floordiv(machine_class.step).alias("step")
        )
        .group_by("machine_id", "step")
        .agg(
            pl.col("last_ts").max().cast(pl.Int64).alias("ts"),
            pl.col("channel").is_in(list(machine_class.channels)).any().alias("has_reading"),
        )
        .filter(pl.col("has_reading") & (pl.col("ts") > (since if since is not None else -1)))
        .select("machine_id", "ts")
        .sort("machine_id", "ts")
        .collect()
    )
    return _evaluate(tile_rows, machine_class, attributes, points)


def features_at(
    values: pl.DataFrame,
    machine_class: MachineClass,
    attributes: Attributes,
    points: pl.DataFrame,
) -> pl.DataFrame:
    """Rows of gold/features at arbitrary points [machine_id, ts (µs)], from raw values.

    Values after a point's ts do not enter its row. Meant for few points: on-demand answers and
    parity checks; it costs one pass over the machine's values per point.
    """
    parts = []
    for machine_id, t in points.select("machine_id", "ts").sort("machine_id", "ts").iter_rows():
        known = values.filter((pl.col("machine_id") == machine_id) & (pl.col("ts") <= t))
        rows = tiles_from_values(known, machine_class)
        point = pl.DataFrame({"machine_id": [machine_id], "ts": [t]})
        parts.append(_evaluate(rows, machine_class, attributes, point))
    return pl.concat(parts) if parts else _rows(machine_class, [], np.zeros(0, np.int64), [])


def _evaluate(
    rows: pl.DataFrame, machine_class: MachineClass, attributes: Attributes, points: pl.DataFrame
) -> pl.DataFrame:
    ids = points["machine_id"].unique().sort()
    codes = dict(zip(ids, range(len(ids)), strict=True))
    by_channel = {
        channel: _of_channel(rows, channel, codes)
        for channel in {spec.channel for spec in machine_class.features}
    }
    machine = points["machine_id"].replace_strict(codes, return_dtype=pl.Int64).to_numpy()
    t = points["ts"].to_numpy()
    vector = np.full((len(t), len(machine_class.vector)), np.nan)
    coverage = np.ones(len(t))
    source = _Source(by_channel, machine_class)
    for i, spec in enumerate(machine_class.features):
        vector[:, i], share = source.feature(spec, machine, t)
        coverage = np.minimum(coverage, share)
    width = len(machine_class.features)
    if machine_class.attributes and len(t):
        fixed = [machine_class.encode_attributes(attributes.get(m, {})) for m in ids]
        vector[:, width:] = np.array(fixed, dtype=np.float64)[machine]
    return _rows(machine_class, points["machine_id"], t, vector, coverage)


def _of_channel(rows: pl.DataFrame, channel: str, codes: Mapping[str, int]) -> pl.DataFrame:
    """One channel's tiles with their machine's code, by machine and time. Sorting numbers only."""
    machine = pl.col("machine_id").replace_strict(codes, default=None, return_dtype=pl.Int64)
    return (
        rows.filter(pl.col("channel") == channel)
        .select(machine.alias("machine"), pl.col("tile_start").cast(pl.Int64), *FIELDS)
        .drop_nulls("machine")
        .sort("machine", "tile_start")
    )


class _Source:
    """Series and merged windows of one evaluation, each computed once."""

    def __init__(
        self,
        by_channel: Mapping[str, pl.DataFrame],
        machine_class: MachineClass,
    ) -> None:
        self._by_channel = by_channel
        self._class = machine_class
        self._series: dict[tuple[str, int, bool], Series] = {}
        self._merged: dict[tuple[str, int], Floats] = {}

    def feature(self, spec: FeatureSpec, machine: Ints, t: Ints) -> tuple[Floats, Floats | float]:
        """Values [G] of one feature and the share of expected values behind each."""
        base = self._class.base_tile(spec.channel)
        is_counter = spec.statistic in COUNTER_STATISTICS and spec.statistic is not Statistic.LAST
        series = self._get(spec.channel, base, is_counter)
        if spec.statistic is Statistic.TIME_SINCE:
            return definitions.elapsed(self._class, series.latest(machine, t, "last_ts"), t), 1.0
        if spec.statistic is Statistic.CUMULATIVE:
            return series.latest(machine, t, "mean"), 1.0
        assert spec.window is not None  # noqa: S101 - only lifetime statistics have none
        assert spec.tile is not None  # noqa: S101 - as above
        if (key := (spec.channel, spec.window)) not in self._merged:
            self._merged[key] = self._get(spec.channel, spec.tile).window(machine, t, spec.window)
        state = self._merged[key]
        if spec.statistic is Statistic.INCREASE:
            start = windows.first_tile(t, spec.window, spec.tile) * spec.tile
            value = series.increase(machine, start, t)
        else:
            value = definitions.finalise(spec, state, self._class)
        expected = definitions.expected_values(spec, self._class)
        share = 1.0 if expected is None else np.minimum(1.0, state[:, 0] / expected)
        return value, share

    def _get(self, channel: str, tile: int, is_counter: bool = False) -> Series:
        key = (channel, tile, is_counter)
        if key not in self._series:
            if is_counter:
                self._series[key] = self._get(channel, tile).counter()
            else:
                self._series[key] = Series.of(self._by_channel[channel], tile)
        return self._series[key]


def _rows(
    machine_class: MachineClass,
    machine_id: pl.Series | list[str],
    t: Ints,
    vector: Floats | list[Floats],
    coverage: Floats | None = None,
) -> pl.DataFrame:
    width = len(machine_class.vector)
    flat = np.asarray(vector, dtype=np.float64).reshape(-1, width)
    return pl.DataFrame(
        {
            "machine_id": pl.Series(machine_id, dtype=pl.String),
            "machine_class": pl.repeat(machine_class.name, len(t), eager=True),
            "feature_set": pl.repeat(machine_class.feature_set, len(t), eager=True),
            "ts": pl.Series(t, dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
            "vector": pl.Series(flat, dtype=pl.Array(pl.Float64, width)).cast(pl.List(pl.Float64)),
            "coverage": coverage if coverage is not None else np.ones(len(t)),
        }
    )
