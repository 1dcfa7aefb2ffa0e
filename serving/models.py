"""What is known of the models: in use, in the shadow, waiting; decisions; drift. Blocking reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aegisops.machines import MachineClass
from serving.evidence import iso_of

if TYPE_CHECKING:
    from aegisops.lake import Lake

SHADOW_DAYS = 14
"""Days of paired scores in a comparison."""
MOST_DECISIONS = 200


def decisions(
    lake: Lake, machine_class: str | None = None, since: datetime | None = None
) -> list[dict[str, Any]]:
    """Rows of ops/model_decisions, newest first, as in console_contract.ModelDecision."""
    import polars as pl

    from aegisops.schemas.tables import MODEL_DECISIONS

    rows = lake.scan(MODEL_DECISIONS)
    if machine_class is not None:
        rows = rows.filter(pl.col("machine_class") == machine_class)
    if since is not None:
        rows = rows.filter(pl.col("decided_at") >= since)
    found = rows.sort("decided_at", descending=True).head(MOST_DECISIONS).collect()
    return [
        {
            "decided_at": iso_of(row["decided_at"]),
            "machine_class": row["machine_class"],
            "version": row["model_version"],
            "digest": row["model_digest"],
            "decision": row["decision"],
            "decided_by": row["decided_by"],
            "reason": row["reason"],
        }
        for row in found.iter_rows(named=True)
    ]


def about(
    bundles: Path, machine_class: str, version: str, history: list[dict[str, Any]]
) -> dict[str, Any]:
    """A bundle's own words and the last decision about it."""
    manifest = _read(bundles / machine_class / version / "bundle" / "manifest.json")
    metrics = manifest.get("metrics") or {}
    decided = [row for row in history if row["version"] == version]
    promoted = [r["decided_at"] for r in decided if r["decision"] in {"promoted", "restored"}]
    return {
        "version": version,
        "trained_at": manifest.get("trained_at"),
        "feature_set": manifest.get("feature_set"),
        "metrics": {
            name: value
            for name, value in metrics.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        },
        "promoted_at": promoted[0] if promoted else None,
        "last_decision": decided[0] if decided else None,
    }


def candidate(bundles: Path, machine_class: str, in_use: set[str]) -> str | None:
    """The newest bundle that is neither in production nor in the shadow, if newer than those."""
    folder = bundles / machine_class
    found = [
        (_read(path).get("trained_at") or "", path.parent.parent.name)
        for path in folder.glob("*/bundle/manifest.json")
    ]
    used = [trained for trained, version in found if version in in_use]
    waiting = sorted((t, v) for t, v in found if v not in in_use and t > max(used, default=""))
    return waiting[-1][1] if waiting else None


def shadow_comparison(
    lake: Lake, machine_class: MachineClass, digest: str, risk: Callable[[float], str]
) -> dict[str, Any]:
    """Both models' scores of the same vectors over the last days.

    `digest`: of the shadow's bundle; `risk`: probability → risk level by the shadow's limits.
    """
    import polars as pl

    from aegisops.schemas.tables import PREDICTIONS, SHADOW_SCORES

    since = datetime.now(UTC) - timedelta(days=SHADOW_DAYS)
    recent = pl.col("date") >= since.date()
    scores = (
        lake.scan(SHADOW_SCORES)
        .filter(recent, pl.col("digest") == digest)
        .unique("prediction_id")
        .select("prediction_id", pl.col("probability").alias("shadow"))
    )
    pairs = (
        lake.scan(PREDICTIONS)
        .filter(
            recent,
            pl.col("feature_set") == machine_class.feature_set,
            pl.col("probability").is_not_null(),
        )
        .unique("prediction_id")
        .select("prediction_id", "asked_at", "probability", "risk")
        .join(scores, on="prediction_id")
        .collect()
    )
    if pairs.is_empty():
        nothing = ("mean_difference", "mean_absolute_difference", "correlation", "agreement")
        return {"pairs": 0, "from": None, "to": None, **dict.fromkeys(nothing)}
    difference = pairs["shadow"] - pairs["probability"]
    same = [risk(shadow) == level for shadow, level in pairs.select("shadow", "risk").iter_rows()]
    correlation = pairs.select(pl.corr("probability", "shadow")).item()
    return {
        "pairs": pairs.height,
        "from": iso_of(pairs["asked_at"].min()),  # type: ignore[arg-type]
        "to": iso_of(pairs["asked_at"].max()),  # type: ignore[arg-type]
        "mean_difference": difference.mean(),
        "mean_absolute_difference": difference.abs().mean(),
        "correlation": correlation if correlation == correlation else None,  # noqa: PLR0124
        "agreement": sum(same) / len(same),
    }


def drift(lake: Lake, machine_class: str, may_see: Callable[[str], bool]) -> list[dict[str, Any]]:
    """Rows of the class's newest drift report; of its machines only those that may be seen."""
    import polars as pl

    from aegisops.schemas.tables import DRIFT

    rows = lake.scan(DRIFT).filter(pl.col("machine_class") == machine_class).collect()
    if rows.is_empty():
        return []
    newest = rows.sort("checked_at")["run_id"][-1]
    return [
        {
            **{n: row[n] for n in ("kind", "feature", "value", "threshold", "drifted", "verdict")},
            "machines": [m for m in row["machines"] if may_see(m)],
            "doubtful_modes": row["doubtful_modes"],
            "checked_at": iso_of(row["checked_at"]),
            "current_from": iso_of(row["current_from"]),
            "current_until": iso_of(row["current_until"]),
            "reference_rows": row["reference_rows"],
            "current_rows": row["current_rows"],
            "report": row["report"],
        }
        for row in rows.filter(pl.col("run_id") == newest)
        .sort("drifted", "value", descending=True, nulls_last=True)
        .iter_rows(named=True)
    ]


def report_page(reports: Path, machine_class: str, report: str) -> Path | None:
    """The HTML of a report, while it is kept."""
    path = (reports / machine_class / f"{report}.html").resolve()
    is_inside = path.is_relative_to((reports / machine_class).resolve())
    return path if is_inside and path.is_file() else None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
