"""What becomes of each topic's records: which tables they fill and how they are judged.

A route's last table closes the flush: it is committed last and always, so its stored offset says
that everything up to there is in every table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import polars as pl

from aegisops import names, quality
from aegisops.names import Reason
from aegisops.quality import Counters, Fleet, Judged, Limits
from aegisops.schemas.tables import (
    ALARM_JOURNAL,
    DEAD_LETTERS,
    EVENTS,
    FEEDBACK,
    PREDICTIONS,
    READINGS,
    SHADOW_SCORES,
    WAVEFORMS,
    WORK_ORDERS,
    Table,
)

UNKNOWN_MACHINE = str(Reason.UNKNOWN_MACHINE)
_UTC = pl.Datetime("us", "UTC")


@dataclass(frozen=True, slots=True)
class Judgement:
    """Judged rows of one topic, before they are split into tables.

    `rows` has _partition, _offset, _index, machine_id, reason and why beside the data.
    """

    rows: pl.DataFrame
    levels: Counters = field(default_factory=dict)


Judge = Callable[[pl.DataFrame, Fleet, Limits, Counters], Judgement]


@dataclass(frozen=True, slots=True)
class Route:
    """One topic's way into the lake."""

    judge: Judge
    split: tuple[tuple[Table, Callable[[pl.DataFrame], pl.DataFrame]], ...]
    """Tables in the order they are committed, and how each finds its rows among the good ones;
    empty when every record is a dead letter."""
    time: str = "ts"
    """Column with a record's time."""

    @property
    def closing(self) -> Table:
        """The table whose stored offset settles all."""
        return self.split[-1][0] if self.split else DEAD_LETTERS


def _readings(records: pl.DataFrame, fleet: Fleet, limits: Limits, levels: Counters) -> Judgement:
    judged = quality.judge_readings(records, fleet, limits, levels)
    return Judgement(judged.readings, judged.levels)


def _events(records: pl.DataFrame, fleet: Fleet, limits: Limits, _: Counters) -> Judgement:
    return _single(quality.judge_events(records, fleet, limits))


def _feedback(records: pl.DataFrame, fleet: Fleet, limits: Limits, _: Counters) -> Judgement:
    return _single(quality.judge_feedback(records, fleet, limits))


def _refusals(records: pl.DataFrame, _: Fleet, __: Limits, ___: Counters) -> Judgement:
    """What a gateway refused: its reason stands."""
    place = pl.concat_str("gateway", "source", "place", separator="/")
    return _single(
        records.with_columns(
            why=pl.concat_str(place, pl.lit(": "), "detail"),
            ts=pl.col("received_at"),
            machine_id=_or_null("machine_id"),
            channel=_or_null("channel"),
        )
    )


def _or_null(column: str) -> pl.Expr:
    return pl.when(pl.col(column) != "").then(pl.col(column))


def _own(time: str) -> Judge:
    """Judge of records that the API wrote itself."""
    return lambda records, _, limits, __: _single(quality.judge_records(records, limits, time))


def _single(rows: pl.DataFrame) -> Judgement:
    return Judgement(rows.with_columns(_index=pl.lit(0, pl.Int32)))


def _times(*columns: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda rows: rows.with_columns(pl.col(*columns).cast(_UTC))


def _good(*times: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda rows: _times(*times)(rows.filter(pl.col("reason").is_null()))


ROUTES: Mapping[str, Route] = {
    names.READINGS_TOPIC: Route(
        _readings,
        (
            (WAVEFORMS, lambda rows: _times("ts")(Judged(rows).waveforms)),
            (READINGS, lambda rows: _times("ts")(Judged(rows).scalars)),
        ),
    ),
    names.EVENTS_TOPIC: Route(_events, ((EVENTS, _good("ts")),)),
    names.PREDICTIONS_TOPIC: Route(
        _own("asked_at"), ((PREDICTIONS, _good("asked_at", "features_at")),), time="asked_at"
    ),
    names.FEEDBACK_TOPIC: Route(_feedback, ((FEEDBACK, _good("ts")),)),
    names.SHADOW_SCORES_TOPIC: Route(
        _own("scored_at"), ((SHADOW_SCORES, _good("scored_at")),), time="scored_at"
    ),
    names.ALARMS_TOPIC: Route(
        _own("changed_at"), ((ALARM_JOURNAL, _good("changed_at", "raised_at")),), time="changed_at"
    ),
    names.WORK_ORDERS_TOPIC: Route(
        _own("changed_at"), ((WORK_ORDERS, _good("changed_at")),), time="changed_at"
    ),
    names.REFUSALS_TOPIC: Route(_refusals, ()),
}


def rejected(topic: str, rows: pl.DataFrame) -> pl.DataFrame:
    """The rejected rows as reason, why, machine_id, channel, ts, _partition, _offset, _index."""
    if topic == names.READINGS_TOPIC:
        bad = Judged(rows).rejected
    elif topic == names.REFUSALS_TOPIC:
        bad = rows
    else:
        bad = rows.filter(pl.col("reason").is_not_null()).with_columns(
            channel=pl.lit(None, pl.String), ts=pl.col(ROUTES[topic].time)
        )
    return bad.select(
        "reason", "why", "machine_id", "channel", "ts", "_partition", "_offset", "_index"
    )


def newest(topic: str, rows: pl.DataFrame) -> int | None:
    """Newest time (µs) of the good rows; None when there is none."""
    good = rows.filter(pl.col("reason").is_null())
    value = good.select(pl.col(ROUTES[topic].time).cast(pl.Int64).max()).item()
    return None if value is None else int(value)
