"""The evidence of one logged prediction, and its replay. Blocking: runs on the lake's threads.

What the audit log holds is told as it was logged; contributions and the sentence are not in it and
are computed again from the logged vector and the signed bundle it names (aegisops.recompute).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aegisops import signing
from aegisops.errors import Permanent
from aegisops.explain import feature_title
from aegisops.machines import MachineClass
from aegisops.machines.model import US_PER_SECOND
from aegisops.names import Rung
from aegisops.settings import Settings

if TYPE_CHECKING:
    from aegisops.lake import Lake
    from aegisops.recompute import Recomputed

OWN_DAYS = 28
"""The machine's own normal: hours of this many days, up to a horizon before the question."""
OWN_HOURS = 24
"""Fewer hours with a value give no range."""


@dataclass(frozen=True, slots=True)
class Records:
    """Reads and recomputes records of the audit log."""

    bundles: Path
    public_key: Path
    classes: Mapping[str, MachineClass]

    @classmethod
    def of(cls, settings: Settings, classes: Mapping[str, MachineClass]) -> Records:
        """What the settings describe."""
        public = settings.signing.public_key or settings.keys_dir / signing.PUBLIC_KEY
        return cls(settings.bundles_dir, public, classes)

    def replay(self, record: Mapping[str, Any]) -> Recomputed:
        """Then and now; raises `NotComputable` and `UntrustedBundle`."""
        from aegisops.recompute import recompute

        return recompute(
            record, self.bundles, lambda f: signing.verify(f, self.public_key), self.classes
        )

    def evidence(self, lake: Lake, record: Mapping[str, Any]) -> dict[str, Any]:
        """The members of console_contract.Evidence that follow from the record."""
        machine_class = self.classes.get(str(record["feature_set"]).partition("@")[0])
        again, problem = None, None
        try:
            again = self.replay(record)
        except Permanent as error:  # the record is told all the same, with why there is no more
            problem = str(error)
        mode = None
        code = record["failure_mode"]
        if code is not None:
            declared = None if machine_class is None else machine_class.failure_modes.get(code)
            mode = {"code": code, "title": declared.title if declared else code}
        return {
            "prediction_id": record["prediction_id"],
            "machine_id": record["machine_id"],
            "machine_class": None if machine_class is None else machine_class.name,
            "asked_at": iso_of(record["asked_at"]),
            "subject": record["subject"],
            "served_by": record["served_by"],
            "probability": record["probability"],
            "risk": record["risk"],
            "failure_mode": mode,
            "explanation": None if again is None else again.explanation,
            "recommended_action": _action(machine_class, code),
            "source": record["source"],
            "features_at": iso_of(record["features_at"]),
            "feature_set": record["feature_set"],
            "model": None
            if record["model_version"] is None
            else {"version": record["model_version"], "digest": record["model_digest"]},
            "latency_ms": record["latency_us"] / 1_000,
            "inputs": _inputs(lake, machine_class, record, again),
            "signals": _signals(lake, machine_class, record),
            "is_replayable": again is not None and record["served_by"] != Rung.ABSTAINED,
            "is_record_intact": None if again is None else again.is_record_intact,
            "detail": problem,
            "chain": {
                "instance": record["instance"],
                "number": record["chain_seq"],
                "digest": record["digest"],
            },
            "feedback": feedback(lake, record["prediction_id"]),
        }


def feedback(lake: Lake, prediction_id: str) -> list[dict[str, Any]]:
    """What people reported about the prediction, oldest first."""
    import polars as pl

    from aegisops.schemas.tables import FEEDBACK

    rows = lake.scan(FEEDBACK).filter(pl.col("prediction_id") == prediction_id).collect()
    return [
        {
            "at": iso_of(row["ts"]),
            "outcome": row["outcome"],
            "failure_mode": row["failure_mode"],
            "subject": row["subject"],
        }
        for row in rows.unique("feedback_id").sort("ts").iter_rows(named=True)
    ]


def predictions_of(
    lake: Lake, machine_id: str, begin: int, end: int, limit: int
) -> list[dict[str, Any]]:
    """The machine's last predictions in [begin, end) µs, newest first, with their outcomes."""
    import polars as pl

    from aegisops.history import days, inside
    from aegisops.schemas.tables import FEEDBACK, PREDICTIONS

    mine = pl.col("machine_id") == machine_id
    rows = (
        lake.scan(PREDICTIONS)
        .filter(days(begin, end), mine, inside("asked_at", begin, end))
        .select("prediction_id", "asked_at", "probability", "risk", "served_by", "failure_mode",
                "model_version", "source")
        .unique("prediction_id")
        .sort("asked_at", descending=True)
        .head(limit)
        .collect()
    )  # fmt: skip
    told = lake.scan(FEEDBACK).filter(mine).sort("_ingested_at", "_offset").collect()
    outcomes = dict(told.select("prediction_id", "outcome").iter_rows())
    return [
        {**row, "asked_at": iso_of(row["asked_at"]), "outcome": outcomes.get(row["prediction_id"])}
        for row in rows.iter_rows(named=True)
    ]


def iso_of(moment: datetime | None) -> str | None:
    """ISO-8601 UTC text in milliseconds."""
    if moment is None:
        return None
    return f"{moment.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def _action(machine_class: MachineClass | None, code: str | None) -> dict[str, Any] | None:
    mode = None if machine_class is None or code is None else machine_class.failure_modes.get(code)
    return None if mode is None else {"text": mode.action, "procedure": mode.procedure}


def _inputs(
    lake: Lake,
    machine_class: MachineClass | None,
    record: Mapping[str, Any],
    again: Recomputed | None,
) -> list[dict[str, Any]]:
    """Every model input: value, class's and machine's own normal, contribution; largest first."""
    if machine_class is None or machine_class.feature_set != record["feature_set"]:
        return []
    reasons = {} if again is None else {r["feature"]: r for r in again.inputs}
    own = _own_ranges(lake, machine_class, record)
    found = []
    for name, value in zip(machine_class.vector, record["vector"], strict=False):
        reason = reasons.get(name, {})
        known = value if value == value else None  # noqa: PLR0124 - NaN is a missing input
        unit = machine_class.unit_of(name)
        text = "missing" if known is None else f"{known:.4g}{'' if unit == '1' else f' {unit}'}"
        found.append(
            {
                "feature": name,
                "title": feature_title(machine_class, name),
                "value": known,
                "unit": unit,
                "text": reason.get("text", text),
                "own_range": own.get(name),
                "class_range": reason.get("normal"),
                "contribution": reason.get("contribution"),
            }
        )
    return sorted(found, key=lambda i: -abs(i["contribution"] or 0.0))


def _own_ranges(
    lake: Lake, machine_class: MachineClass, record: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """5, 50 and 95 % points of the machine's own hourly means before the question, by input."""
    import polars as pl

    from aegisops.schemas.tables import HOURLY

    at = record["features_at"] or record["asked_at"]
    until = at - timedelta(microseconds=machine_class.horizon)
    since = until - timedelta(days=OWN_DAYS)
    rows = (
        lake.scan(HOURLY)
        .filter(
            pl.col("month").is_between(pl.lit(f"{since:%Y-%m}"), pl.lit(f"{until:%Y-%m}")),
            pl.col("machine_id") == record["machine_id"],
            pl.col("kind") == "feature",
            pl.col("ts").is_between(since, until),
            pl.col("mean").is_not_null(),
        )
        .group_by("name")
        .agg(
            hours=pl.len(),
            low=pl.col("mean").quantile(0.05, "linear"),
            median=pl.col("mean").median(),
            high=pl.col("mean").quantile(0.95, "linear"),
        )
        .filter(pl.col("hours") >= OWN_HOURS)
        .collect()
    )
    return {row.pop("name"): row for row in rows.iter_rows(named=True)}


def _signals(
    lake: Lake, machine_class: MachineClass | None, record: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """What arrived of each channel over the longest window before the vector, and how good."""
    from aegisops.history import Kind, Series, Span, read

    at = record["features_at"]
    if machine_class is None or at is None:
        return []
    end = round(at.timestamp() * US_PER_SECOND) + 1
    over = Span(end - machine_class.lateness, end, machine_class.lateness)
    found = []
    for name, channel in machine_class.channels.items():
        series = Series(machine_class, record["machine_id"], Kind.CHANNEL, name)
        rows = read(lake, series, over)
        good, bad = float(rows["n"].sum()), float(rows["n_bad"].sum())
        expected = machine_class.lateness / channel.period * channel.samples
        found.append(
            {
                "channel": name,
                "title": channel.title or name,
                "unit": channel.unit,
                "coverage": round(min(1.0, good / expected), 4),
                "bad_share": round(bad / (good + bad), 4) if good + bad else None,
            }
        )
    return found
