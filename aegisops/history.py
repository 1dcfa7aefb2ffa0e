"""One series of one machine over a span, in buckets: what charts are drawn from. Reads the lake.

Each span is read from the coarsest table that still fills the buckets: gold/hourly, then
silver/tiles (gold/features for a feature) behind its last row, then bronze behind that. The last
row of a coarse table may have been made half full, so the finer one is read from there on. Means
are weighted by the number of values; a bucket without values is left out, never interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import polars as pl

from aegisops.lake import Lake
from aegisops.machines import ChannelKind, MachineClass
from aegisops.machines.model import US_PER_HOUR, US_PER_SECOND
from aegisops.names import Quality
from aegisops.schemas.tables import (
    EVENTS,
    FEATURES,
    FEEDBACK,
    HOURLY,
    PREDICTIONS,
    READINGS,
    TILES,
    WAVEFORMS,
    Table,
)

_DAY = 24 * US_PER_HOUR
_MINUTE = 60 * US_PER_SECOND
WIDTHS = tuple(
    [s * US_PER_SECOND for s in (1, 2, 5, 10, 15, 30)]
    + [m * _MINUTE for m in (1, 2, 5, 10, 15, 30)]
    + [h * US_PER_HOUR for h in (1, 2, 3, 4, 6, 12)]
    + [d * _DAY for d in (1, 2, 4, 7, 14, 28)]
)
"""Bucket widths in µs; few and round, so that panning asks for the same buckets again."""

COLUMNS = ("n", "n_bad", "mean", "mean_square", "min", "max")


class Kind(StrEnum):
    """What a series is of."""

    CHANNEL = "channel"
    FEATURE = "feature"
    RISK = "risk"


@dataclass(frozen=True)
class Series:
    """One series of one machine."""

    machine_class: MachineClass
    machine_id: str
    kind: Kind
    name: str
    """Channel or feature; `probability` for a risk."""

    @property
    def unit(self) -> str:
        """Unit of its values."""
        if self.kind is Kind.RISK:
            return "1"
        if self.kind is Kind.FEATURE:
            return self.machine_class.unit_of(self.name)
        return self.machine_class.channels[self.name].unit

    @property
    def period(self) -> int:
        """Time between two values in µs, as declared."""
        if self.kind is Kind.CHANNEL:
            return self.machine_class.channels[self.name].period
        return self.machine_class.step

    @property
    def is_waveform(self) -> bool:
        """Whether one reading is many samples."""
        channel = self.machine_class.channels.get(self.name)
        is_channel = self.kind is Kind.CHANNEL and channel is not None
        return is_channel and channel.kind is ChannelKind.WAVEFORM  # type: ignore[union-attr]


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open [begin, end) in µs on the machine's clock, cut into buckets of `width` µs."""

    begin: int
    end: int
    width: int

    @property
    def buckets(self) -> int:
        """How many."""
        return (self.end - self.begin) // self.width


def span(begin: int, end: int, points: int, period: int = 0) -> Span:
    """The span of whole buckets around [begin, end): at most about `points` of them.

    A bucket is no shorter than `period`, so that an empty one means that something is missing.
    """
    fit = (w for w in WIDTHS if (end - begin) / w <= points and w >= period)
    width = next(fit, max(WIDTHS[-1], -(-(end - begin) // points)))
    return Span(begin // width * width, -(-end // width) * width, width)


def read(lake: Lake, series: Series, over: Span) -> pl.DataFrame:
    """Buckets that hold something: bucket (start, µs) and COLUMNS; sorted.

    `mean_square` is there for waveforms, whose mean says nothing. `n` counts good values, `n_bad`
    those without (of bad quality; for a risk, answers without a probability).
    """
    parts: list[pl.DataFrame] = []
    rest = over
    if over.width >= US_PER_HOUR:
        rest = _coarse(_hourly(lake, series, rest), rest, parts)
    if series.kind is Kind.CHANNEL:
        if over.width >= series.machine_class.base_tile(series.name):
            rest = _coarse(_tiles(lake, series, rest), rest, parts)
        finest = _values(lake, series, rest)
    elif series.kind is Kind.FEATURE:
        rest = _coarse(_features(lake, series, rest), rest, parts)
        finest = _served(lake, series, rest)
    else:
        finest = _risk(lake, series, rest)
    return summarise(pl.concat([*parts, _summaries(finest)]), over.width)


def sources(series: Series) -> tuple[Table, ...]:
    """Tables that `read` may take the series from, coarsest first."""
    if series.kind is Kind.CHANNEL:
        return HOURLY, TILES, WAVEFORMS if series.is_waveform else READINGS
    if series.kind is Kind.FEATURE:
        return HOURLY, FEATURES, PREDICTIONS
    return HOURLY, PREDICTIONS


def events(lake: Lake, machine_id: str, begin: int, end: int) -> pl.DataFrame:
    """What happened to the machine in [begin, end) µs: ts, source, type, code, detail; sorted."""
    over = Span(begin, end, 1)
    mine = (pl.col("machine_id") == machine_id) & _inside("ts", over)
    happened = (
        lake.scan(EVENTS)
        .filter(mine)
        .select("ts", pl.lit("event").alias("source"), "type", "code", "detail")
    )
    told = (
        lake.scan(FEEDBACK)
        .filter(mine)
        .unique("feedback_id")
        .select(
            "ts",
            pl.lit("feedback").alias("source"),
            pl.col("outcome").alias("type"),
            pl.col("failure_mode").fill_null("").alias("code"),
            pl.col("prediction_id").alias("detail"),
        )
    )
    parts = [part.with_columns(pl.col("ts").cast(pl.Int64)).collect() for part in (happened, told)]
    return pl.concat(parts).sort("ts", "source", "type")


def summarise(rows: pl.DataFrame, width: int, by: Sequence[str] = ()) -> pl.DataFrame:
    """Rows of [ts (µs), COLUMNS, *by] merged into buckets of `width` µs, sorted. Pure."""
    weighted = [(pl.col(c) * pl.col("n")).sum() / pl.col("n").sum() for c in COLUMNS[2:4]]
    return (
        rows.lazy()
        .with_columns((pl.col("ts") // width * width).alias("bucket"))
        .group_by(*by, "bucket")
        .agg(
            pl.col("n").sum(),
            pl.col("n_bad").sum(),
            *weighted,
            pl.col("min").min(),
            pl.col("max").max(),
        )
        .with_columns([pl.when(pl.col("n") > 0).then(pl.col(c)).alias(c) for c in COLUMNS[2:]])
        .select(*by, "bucket", *COLUMNS)
        .sort(*by, "bucket")
        .collect()
    )


def tile_rows(tiles: pl.LazyFrame) -> pl.LazyFrame:
    """silver/tiles as summaries; other columns stay."""
    return tiles.with_columns(
        ts=pl.col("tile_start").cast(pl.Int64),
        mean_square=pl.when(pl.col("n") > 0).then(pl.col("m2") / pl.col("n") + pl.col("mean") ** 2),
        **{c: pl.when(pl.col("n") > 0).then(pl.col(c)) for c in ("mean", "min", "max")},
    )


def single_rows(rows: pl.LazyFrame, value: pl.Expr) -> pl.LazyFrame:
    """Rows of one value each (not finite or null = none) as summaries; other columns stay."""
    good = value.is_finite().fill_null(value=False)
    kept = pl.when(good).then(value)
    return rows.with_columns(
        n=good.cast(pl.Float64),
        n_bad=(~good).cast(pl.Float64),
        mean=kept,
        mean_square=kept**2,
        min=kept,
        max=kept,
    )


def risk_rows(predictions: pl.LazyFrame) -> pl.LazyFrame:
    """bronze/predictions as summaries of the probability; answers about given features left out."""
    return single_rows(
        predictions.filter(pl.col("source") != "request").with_columns(
            ts=pl.col("asked_at").cast(pl.Int64)
        ),
        pl.col("probability"),
    )


def _coarse(rows: pl.LazyFrame, rest: Span, parts: list[pl.DataFrame]) -> Span:
    """Take the coarse rows but the last; what remains to be read more finely."""
    found = _summaries(rows)
    if found.is_empty():
        return rest
    last = int(found["ts"].to_numpy().max())
    parts.append(found.filter(pl.col("ts") < last))
    return Span(last, rest.end, rest.width)


def _summaries(rows: pl.LazyFrame) -> pl.DataFrame:
    types: dict[str, type[pl.DataType]] = {"ts": pl.Int64} | dict.fromkeys(COLUMNS, pl.Float64)
    return rows.select(pl.col(name).cast(type_) for name, type_ in types.items()).collect()


def _hourly(lake: Lake, series: Series, over: Span) -> pl.LazyFrame:
    return lake.scan(HOURLY).filter(
        # The partition first, then what the row groups are sorted by.
        pl.col("month").is_between(_month(over.begin), _month(over.end)),
        pl.col("machine_id") == series.machine_id,
        pl.col("kind") == series.kind.value,
        pl.col("name") == series.name,
        _inside("ts", over),
    )


def _tiles(lake: Lake, series: Series, over: Span) -> pl.LazyFrame:
    return tile_rows(
        lake.scan(TILES).filter(
            _days(over),
            pl.col("machine_id") == series.machine_id,
            pl.col("channel") == series.name,
            _inside("tile_start", over),
        )
    )


def _values(lake: Lake, series: Series, over: Span) -> pl.LazyFrame:
    rows = lake.scan(WAVEFORMS if series.is_waveform else READINGS).filter(
        _days(over),
        pl.col("machine_id") == series.machine_id,
        pl.col("channel") == series.name,
        _inside("ts", over),
    )
    good = pl.col("quality") == Quality.GOOD
    if not series.is_waveform:
        return single_rows(rows, pl.when(good).then(pl.col("value")))
    samples = pl.when(good).then(pl.col("values"))
    length = pl.col("values").list.len().cast(pl.Float64)
    return rows.select(
        "ts",
        n=pl.when(good).then(length).otherwise(0.0),
        n_bad=pl.when(good).then(0.0).otherwise(length),
        mean=samples.list.mean(),
        mean_square=samples.list.eval(pl.element() ** 2).list.mean(),
        min=samples.list.min(),
        max=samples.list.max(),
    )


def _features(lake: Lake, series: Series, over: Span) -> pl.LazyFrame:
    rows = lake.scan(FEATURES).filter(
        pl.col("machine_class") == series.machine_class.name,
        _days(over),
        pl.col("machine_id") == series.machine_id,
        pl.col("feature_set") == series.machine_class.feature_set,
        _inside("ts", over),
    )
    return single_rows(rows, _input(series))


def _served(lake: Lake, series: Series, over: Span) -> pl.LazyFrame:
    """The feature as predictions saw it: newer than what the batch has computed."""
    rows = lake.scan(PREDICTIONS).filter(
        _days(over),
        pl.col("machine_id") == series.machine_id,
        pl.col("feature_set") == series.machine_class.feature_set,
        pl.col("source") != "request",
        _inside("features_at", over),
    )
    return single_rows(rows.with_columns(ts=pl.col("features_at")).unique("ts"), _input(series))


def _input(series: Series) -> pl.Expr:
    index = series.machine_class.vector.index(series.name)
    return pl.col("vector").list.get(index, null_on_oob=True)


def _risk(lake: Lake, series: Series, over: Span) -> pl.LazyFrame:
    return risk_rows(
        lake.scan(PREDICTIONS).filter(
            _days(over), pl.col("machine_id") == series.machine_id, _inside("asked_at", over)
        )
    )


def inside(column: str, begin: int, end: int) -> pl.Expr:
    """Whether a time column lies in [begin, end) µs."""
    return (pl.col(column) >= _time(begin)) & (pl.col(column) < _time(end))


def days(begin: int, end: int) -> pl.Expr:
    """Whether a `date` partition may hold rows of [begin, end) µs."""
    return pl.col("date").is_between(_date(begin), _date(end))


def _inside(column: str, over: Span) -> pl.Expr:
    return inside(column, over.begin, over.end)


def _days(over: Span) -> pl.Expr:
    return days(over.begin, over.end)


def _time(us: int) -> pl.Expr:
    return pl.lit(us, pl.Int64).cast(pl.Datetime("us", "UTC"))


def _date(us: int) -> pl.Expr:
    return pl.lit(us // _DAY, pl.Int32).cast(pl.Date)


def _month(us: int) -> pl.Expr:
    return pl.lit(f"{datetime.fromtimestamp(us // US_PER_SECOND, UTC):%Y-%m}")
