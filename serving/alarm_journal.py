"""The alarm journal as it lies in the lake, and its tail in Kafka. Blocking; run it in a thread.

A record may lie there twice, because its way to Kafka is at least once: `journal_id` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from aegisops.alarms import journal, kpi
from aegisops.alarms.lifecycle import Alarm
from aegisops.alarms.view import iso
from aegisops.errors import BadInput
from aegisops.machines.durations import US_PER_SECOND
from aegisops.names import ALARMS_TOPIC
from aegisops.settings import Settings

if TYPE_CHECKING:
    import polars as pl

    from aegisops.lake import Lake

Places = tuple[Sequence[str] | None, Sequence[str] | None]
"""Sites and areas that may be seen; None = all."""
OVERLAP = timedelta(minutes=10)
"""How far before the lake's newest record the tail begins: Kafka's clock is the producers'."""


class JournalReader:
    """The states that the whole journal leads to."""

    def __init__(self, lake: Callable[[], Lake], settings: Settings) -> None:
        """`lake`: made at the first question, because its libraries are slow to import."""
        self._lake = lake
        self._settings = settings

    def states(self, *, with_tail: bool = True) -> dict[str, Alarm]:
        """Every alarm's state after the whole journal: the lake's, and what Kafka has beyond.

        Raises `ServiceUnavailable` when Kafka or the registry is away; without the tail only the
        lake must answer.
        """
        import polars as pl

        rows = _scan(self._lake())
        newest = (
            rows.sort("version")
            .group_by("alarm_id")
            .last()
            .select("alarm_id", "version", "transition", "snapshot")
            .collect()
        )
        records: list[dict[str, Any]] = newest.to_dicts()
        if with_tail:
            written = rows.select(pl.col("_ingested_at").max()).collect().item()
            records += self._tail(written - OVERLAP if written else datetime.fromtimestamp(0, UTC))
        return journal.replay(records)

    def _tail(self, since: datetime) -> list[dict[str, Any]]:
        from aegisops import bus
        from aegisops.schema_registry import SchemaRegistry
        from aegisops.schemas import avro

        payloads = bus.tail(self._settings.kafka, ALARMS_TOPIC, round(since.timestamp() * 1_000))
        if not payloads:
            return []
        with SchemaRegistry(self._settings) as registry:
            records, _ = avro.decode_many(ALARMS_TOPIC, payloads, registry.schema)
        return records.select("alarm_id", "version", "transition", "snapshot").to_dicts()


def page(
    lake: Lake,
    *,
    begin: datetime,
    end: datetime,
    machine_id: str | None,
    alarm_id: str | None,
    cursor: str | None,
    limit: int,
    places: Places,
) -> tuple[list[dict[str, Any]], str | None]:
    """Transitions in [begin, end), newest first, and the cursor of the next page.

    Raises `BadInput` for a cursor that
    is none.
    """
    import polars as pl

    rows = _within(_scan(lake), begin, end).pipe(_visible, *places)
    if machine_id is not None:
        rows = rows.filter(pl.col("machine_id") == machine_id)
    if alarm_id is not None:
        rows = rows.filter(pl.col("alarm_id") == alarm_id)
    if cursor is not None:
        at, identity = _parse(cursor)
        key = pl.col("changed_at").cast(pl.Int64)
        rows = rows.filter((key < at) | ((key == at) & (pl.col("journal_id") < identity)))
    found = (
        rows.unique("journal_id", keep="any")
        .sort("changed_at", "journal_id", descending=True)
        .head(limit + 1)
        .drop("snapshot")
        .with_columns(pl.col("changed_at", "raised_at").cast(pl.Int64))
        .collect()
        .to_dicts()
    )
    if len(found) <= limit:
        return found, None
    last = found[limit - 1]
    return found[:limit], f"{last['changed_at']}~{last['journal_id']}"


def span(
    lake: Lake,
    begin: datetime,
    end: datetime,
    places: Places,
) -> pl.DataFrame:
    """The journal up to `end` from `begin` on, each record once, in time order.

    Before them comes the newest earlier record of every alarm: what stood at `begin`.
    """
    import polars as pl

    rows = _scan(lake).pipe(_visible, *places).drop("snapshot").unique("journal_id")
    at = pl.col("changed_at")
    before = rows.filter(at < begin).sort("version").group_by("alarm_id").last()
    inside = rows.filter(at >= begin, at < end)
    return (
        pl.concat([before, inside], how="diagonal")
        .with_columns(pl.col("changed_at", "raised_at").cast(pl.Int64))
        .sort("changed_at", "version")
        .collect()
    )


def figures(lake: Lake, begin: datetime, end: datetime, places: Places) -> dict[str, Any]:
    """The members of alarm_contract.AlarmKpi but its span."""
    first, last = (round(moment.timestamp() * US_PER_SECOND) for moment in (begin, end))
    found = kpi.figures(span(lake, begin, end, places).iter_rows(named=True), first, last)
    for stale in found["stale"]:
        stale["raised_at"] = iso(stale["raised_at"])
    return found


def row(record: dict[str, Any]) -> dict[str, Any]:
    """The members of alarm_contract.JournalRow."""
    return {
        **{name: record[name] for name in _SHOWN},
        "changed_at": iso(record["changed_at"]),
        "group": record["cause_group"],
        "first_out": record["is_first_out"],
    }


_SHOWN = (
    "journal_id",
    "alarm_id",
    "version",
    "transition",
    "state",
    "kind",
    "priority",
    "definition_id",
    "revision",
    "machine_id",
    "site",
    "area",
    "occurrence",
    "subject",
    "comment",
    "value",
    "setpoint",
    "prediction_id",
)


def _scan(lake: Lake) -> pl.LazyFrame:
    from aegisops.schemas.tables import ALARM_JOURNAL

    return lake.scan(ALARM_JOURNAL)


def _within(rows: pl.LazyFrame, begin: datetime, end: datetime) -> pl.LazyFrame:
    import polars as pl

    return rows.filter(
        # The partition column first: it prunes whole days.
        pl.col("date").is_between(begin.date(), end.date()),
        pl.col("changed_at") >= begin,
        pl.col("changed_at") < end,
    )


def _visible(
    rows: pl.LazyFrame, sites: Sequence[str] | None, areas: Sequence[str] | None
) -> pl.LazyFrame:
    import polars as pl

    is_own = pl.col("machine_id") == ""
    for column, allowed in (("site", sites), ("area", areas)):
        if allowed is not None:
            rows = rows.filter(is_own | pl.col(column).is_in(list(allowed)))
    return rows


def _parse(cursor: str) -> tuple[int, str]:
    at, _, identity = cursor.partition("~")
    if not at.isdigit() or not identity:
        raise BadInput("cursor", "this is not a cursor of an earlier page; begin without one")
    return int(at), identity
