"""The slow, obvious meaning of every feature: one machine, one time, plain loops. It stays."""

import math
from itertools import pairwise

import polars as pl

from aegisops.features.definitions import RESOLUTION
from aegisops.machines import MachineClass, Statistic

NAN = float("nan")


def vector(values: pl.DataFrame, machine_class: MachineClass, machine_id: str, t: int):
    """Feature values at `t` and, beside each, the scale its error is measured against."""
    good = [
        (channel, ts, value)
        for m, channel, ts, value, quality in values.select(
            "machine_id", "channel", "ts", "value", "quality"
        ).iter_rows()
        if m == machine_id
        and quality == 0
        and value is not None
        and math.isfinite(value)
        and ts <= t
    ]
    out = []
    for spec in machine_class.features:
        rows = sorted((ts, x) for channel, ts, x in good if channel == spec.channel)
        base = machine_class.base_tile(spec.channel)
        if spec.window is not None:
            start = (t // spec.tile - spec.window // spec.tile) * spec.tile
            rows = [r for r in rows if r[0] >= start]
        out.append(_feature(spec, rows, base, t, machine_class))
    return out


def _feature(spec, rows, base, t, machine_class):
    hour = machine_class.hour
    xs = [x for _, x in rows]
    n = len(xs)
    if spec.statistic is Statistic.COUNT:
        return float(n), 1.0
    if n == 0:
        return NAN, 1.0
    scale = max(abs(x) for x in xs) or 1.0
    if spec.statistic is Statistic.TIME_SINCE:
        return (t - rows[-1][0]) / hour, 1.0
    if spec.statistic in {Statistic.INCREASE, Statistic.CUMULATIVE}:
        tiles = {}
        for ts, x in rows:
            tiles.setdefault(ts // base, []).append(x)
        edges = [e for k in sorted(tiles) for e in (tiles[k][0], tiles[k][-1])]
        total = math.fsum(b - a if b >= a else b for a, b in pairwise(edges))
        if spec.statistic is Statistic.CUMULATIVE:
            total += edges[0]
        return total, max(abs(total), scale)
    mean = math.fsum(xs) / n
    m2 = math.fsum((x - mean) ** 2 for x in xs)
    rms = math.sqrt(math.fsum(x * x for x in xs) / n)
    match spec.statistic:
        case Statistic.MEAN:
            return mean, scale
        case Statistic.DEVIATION:
            return mean - machine_class.channels[spec.channel].baseline, scale
        case Statistic.STD:
            return (math.sqrt(m2 / (n - 1)), scale) if n > 1 else (NAN, 1.0)
        case Statistic.RMS:
            return rms, scale
        case Statistic.KURTOSIS:
            if n < 4 or m2 <= n * (RESOLUTION * scale) ** 2:
                return NAN, 1.0
            value = n * math.fsum((x - mean) ** 4 for x in xs) / m2**2 - 3
            return value, abs(value) + 3
        case Statistic.MIN:
            return min(xs), scale
        case Statistic.MAX:
            return max(xs), scale
        case Statistic.LAST:
            return rows[-1][1], scale
        case Statistic.CREST:
            return (scale / rms, scale / rms) if rms > 0 else (NAN, 1.0)
        case Statistic.RATE_OF_CHANGE:
            times = [(ts - t) / 1e6 for ts, _ in rows]
            centre = math.fsum(times) / n
            stt = math.fsum((s - centre) ** 2 for s in times)
            if len({ts for ts, _ in rows}) == 1:
                return NAN, 1.0
            stx = math.fsum((s - centre) * (x - mean) for s, x in zip(times, xs, strict=True))
            per_hour = hour / 1e6
            return stx / stt * per_hour, scale * n / math.sqrt(stt) * per_hour
