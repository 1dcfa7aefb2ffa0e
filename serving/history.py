"""Charts of one machine: a series in buckets as compact columns, and events beside it. Pure.

The lake's side is aegisops.history; here it becomes the answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from aegisops.explain import feature_title
from aegisops.machines import MachineClass
from aegisops.machines.model import US_PER_SECOND
from serving.prediction import iso
from serving.problem import Problem

if TYPE_CHECKING:
    import polars as pl

    from aegisops.history import Series, Span

DIGITS = 6
"""Significant digits of a value on a chart."""
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def series_of(
    machine_class: MachineClass,
    machine_id: str,
    *,
    channel: str | None,
    feature: str | None,
    risk: bool,
) -> Series:
    """The one series that was asked for; `Problem` invalid when not exactly one, or unknown."""
    from aegisops.history import Kind, Series

    if (channel is not None) + (feature is not None) + risk != 1:
        raise Problem("invalid", "Ask for exactly one of channel, feature and risk=true.")
    kind, name, known = Kind.RISK, "probability", ["probability"]
    if channel is not None:
        kind, name, known = Kind.CHANNEL, channel, list(machine_class.channels)
    elif feature is not None:
        kind, name, known = Kind.FEATURE, feature, list(machine_class.vector)
    if name not in known:
        raise Problem(
            "invalid", f"{machine_class.name} has no {kind.value} of this name.", known=known
        )
    return Series(machine_class, machine_id, kind, name)


def micros(
    begin: datetime | None, end: datetime | None, now: float, last: float
) -> tuple[int, int]:
    """[begin, end) in µs; by default the `last` seconds until `now` (Unix seconds)."""
    until = datetime.fromtimestamp(now, UTC) if end is None else _utc(end)
    since = datetime.fromtimestamp(until.timestamp() - last, UTC) if begin is None else _utc(begin)
    if not since < until:
        raise Problem("invalid", "`from` must be before `to`.")
    if since < _FIRST or until > _LAST:
        raise Problem("invalid", "Times must lie between 1970 and 2200.")
    return _micros(since), _micros(until)


def answer(
    series: Series,
    over: Span,
    found: pl.DataFrame,
    normals: Mapping[str, Mapping[str, Any]],
    now: float,
) -> dict[str, Any]:
    """The members of console_contract.History; one entry per bucket, null where nothing is.

    `normals`: healthy range by feature, of the model in production.
    """
    index = ((found["bucket"].to_numpy() - over.begin) // over.width).astype(np.int64)
    columns: dict[str, list[float | None]] = {}
    wanted: dict[str, Any] = {name: found[name].to_numpy() for name in ("mean", "min", "max")}
    if series.is_waveform:
        wanted["rms"] = np.sqrt(found["mean_square"].to_numpy())
    for name, values in wanted.items():
        columns[name] = _spread(over.buckets, index, _rounded(values))
    n, bad = found["n"].to_numpy(), found["n_bad"].to_numpy()
    counts = _spread(over.buckets, index, n)
    with np.errstate(invalid="ignore"):
        share = np.round(bad / (n + bad), 4)
    return {
        "machine_id": series.machine_id,
        "kind": series.kind.value,
        "name": series.name,
        "title": _title(series),
        "unit": series.unit,
        "normal": _normal(series, normals),
        "limits": _limits(series),
        "clock": series.machine_class.clock.value,
        "from": iso(over.begin),
        "to": iso(over.end),
        "bucket_seconds": over.width / US_PER_SECOND,
        "buckets": over.buckets,
        "rms": None,
        **columns,
        "count": [0 if c is None else int(c) for c in counts],
        "bad_share": _spread(over.buckets, index, share),
        "gaps": gaps(over, set(index.tolist())),
        "as_of": iso(round(now * US_PER_SECOND)),
    }


def _title(series: Series) -> str:
    declared = series.machine_class
    if series.name in declared.channels:
        return declared.channels[series.name].title or series.name
    if series.name in declared.vector:
        return feature_title(declared, series.name)
    return "Failure probability"


def _normal(series: Series, normals: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    found = normals.get(series.name)
    return found if found and None not in found.values() else None


def _limits(series: Series) -> dict[str, Any] | None:
    for rule in series.machine_class.thresholds:
        if rule.feature == series.name:
            return {"warning": rule.warning, "alarm": rule.alarm, "direction": rule.direction}
    return None


def gaps(over: Span, filled: set[int]) -> list[dict[str, str]]:
    """Runs of two or more buckets without any value between the first and the last with one."""
    found: list[tuple[int, int]] = []
    begin: int | None = None
    for i in range(min(filled, default=0), max(filled, default=0)):
        if i in filled:
            if begin is not None and i - begin > 1:
                found.append((begin, i))
            begin = None
        elif begin is None:
            begin = i
    if begin is not None and max(filled) - begin > 1:
        found.append((begin, max(filled)))
    return [
        {"from": iso(over.begin + a * over.width), "to": iso(over.begin + b * over.width)}
        for a, b in found
    ]


def etag(series: Series, over: Span, versions: Mapping[str, int]) -> str:
    """Changes when the question or any table behind the answer does."""
    what = (series.kind, series.machine_id, series.name, series.machine_class.feature_set)
    text = repr((what, over.begin, over.end, over.width))
    return f'"{hashlib.sha256((text + repr(sorted(versions.items()))).encode()).hexdigest()[:24]}"'


def _utc(time: datetime) -> datetime:
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _micros(time: datetime) -> int:
    return round(time.timestamp()) * US_PER_SECOND


def _rounded(values: Any) -> Any:  # noqa: ANN401 - a float array
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 10.0 ** (DIGITS - 1 - np.floor(np.log10(np.abs(values))))
    scaled = np.round(values * scale) / scale
    return np.where(np.isfinite(scaled), scaled, values)


def _spread(buckets: int, index: Any, values: Any) -> list[float | None]:  # noqa: ANN401
    """Values at their places among `buckets`; null elsewhere and for what is not finite."""
    column: list[float | None] = [None] * buckets
    for i, value in zip(index.tolist(), np.asarray(values, float).tolist(), strict=True):
        if value == value and abs(value) != float("inf"):  # noqa: PLR0124 - NaN
            column[i] = value
    return column
