"""From scores to words: the top reasons, one plain sentence, what to do. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from aegisops.machines import Clock, MachineClass, Statistic
from aegisops.machines.model import US_PER_SECOND
from aegisops.names import RiskLevel
from aegisops.scoring import Bundle

TOP = 5
_STATISTICS = {
    Statistic.MEAN: "{channel} mean over {window}",
    Statistic.STD: "{channel} spread over {window}",
    Statistic.RMS: "{channel} RMS over {window}",
    Statistic.KURTOSIS: "{channel} kurtosis over {window}",
    Statistic.MIN: "{channel} minimum over {window}",
    Statistic.MAX: "{channel} maximum over {window}",
    Statistic.LAST: "last {channel} within {window}",
    Statistic.CREST: "{channel} crest factor over {window}",
    Statistic.RATE_OF_CHANGE: "{channel} rate of change over {window}",
    Statistic.DEVIATION: "{channel} deviation from its baseline over {window}",
    Statistic.COUNT: "count of {channel} over {window}",
    Statistic.INCREASE: "{channel} over {window}",
    Statistic.TIME_SINCE: "time since {channel}",
    Statistic.CUMULATIVE: "total {channel}",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """One feature's part in a probability."""

    feature: str
    title: str
    value: float | None
    """None when the value is missing."""
    text: str
    """The value as people read it: rounded with unit, or the category's name."""
    unit: str
    normal: tuple[float, float] | None
    """5 and 95 % points of healthy rows."""
    contribution: float | None
    """SHAP value in log-odds; positive raises the risk. None for a reason of the forest, whose
    score is no sum over inputs."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a probability is what it is and what to do about it."""

    sentence: str
    reasons: tuple[Reason, ...]
    """Largest contributions (of the forest: deviations) first, at most `TOP`."""
    failure_mode: str | None
    """Most likely mode; None at normal risk."""
    failure_mode_title: str | None
    mode_probability: float | None
    """Share of the modes' total that this one has; None without a mode model."""
    action: str | None
    procedure: str | None


def explain(
    bundle: Bundle,
    vector: npt.ArrayLike,
    contributions: npt.ArrayLike,
    mode_probability: npt.ArrayLike,
    probability: float,
) -> Explanation:
    """Explain one score.

    Args:
        bundle: the bundle that gave the score.
        vector: [d] model inputs.
        contributions: [d] row of `Scores.contributions`.
        mode_probability: [k] row of `Scores.mode_probability`.
        probability: the calibrated probability the sentence states.
    """
    machine_class = bundle.machine_class
    risk = RiskLevel(bundle.risk(probability))
    reasons = _reasons(bundle, np.asarray(vector, float), np.asarray(contributions, float))
    mode, share = None, None
    if risk is not RiskLevel.NORMAL:
        mode, share = _failure_mode(machine_class, bundle.modes, mode_probability, reasons)
    declared = machine_class.failure_modes.get(mode) if mode else None
    title = declared.title if declared else mode
    return Explanation(
        sentence=_sentence(bundle, risk, probability, reasons, title),
        reasons=reasons,
        failure_mode=mode,
        failure_mode_title=title,
        mode_probability=share,
        action=declared.action if declared else None,
        procedure=declared.procedure if declared else None,
    )


def explain_unusual(
    bundle: Bundle, vector: npt.ArrayLike, score: float, probability: float
) -> Explanation:
    """Explain one score of the bundle's forest by what is unusual, which is no proof of a cause.

    Reasons are the inputs furthest from their normal range; a mode is named only when one of them
    is outside it and on a channel that the class says points to the mode.

    Args:
        bundle: the bundle whose forest gave the score.
        vector: [d] model inputs.
        score: from `anomaly.score`.
        probability: the score's calibrated probability.
    """
    assert bundle.forest is not None  # noqa: S101 - there is a score
    machine_class = bundle.machine_class
    values: list[float] = np.asarray(vector, float).tolist()
    measured = [i for i in bundle.forest.inputs.tolist() if math.isfinite(values[i])]
    furthest = sorted(measured, key=lambda i: (-deviation(bundle, i, values[i]), i))[:TOP]
    names, normals = bundle.vector, bundle.normals
    reasons = tuple(_reason(machine_class, normals, names[i], values[i], None) for i in furthest)
    outside = [
        reason
        for i, reason in zip(furthest, reasons, strict=True)
        if deviation(bundle, i, values[i]) > 1
    ]
    is_unusual = score > float(bundle.forest.usual)
    mode = None
    if bundle.risk(probability) != RiskLevel.NORMAL:
        mode = _mode_by_channel(machine_class, outside)
    declared = machine_class.failure_modes.get(mode) if mode else None
    likeness = "unlike" if is_unusual else "like"
    opening = f"Operation looks {likeness} this machine class's healthy operation"
    within = ": each value is within its normal range, their combination is unusual"
    if not outside:
        because = within if is_unusual else ""
    elif is_unusual:
        because = f": {' and '.join(_because(reason) for reason in outside[:2])}"
    else:
        because = f"; furthest from normal, {_because(outside[0])}"
    horizon = duration(bundle.horizon_us, machine_class.clock)
    return Explanation(
        sentence=f"{opening}{because}. On held-out data {percent(probability)} of such states "
        f"were followed by a failure within {horizon}.",
        reasons=reasons,
        failure_mode=mode,
        failure_mode_title=declared.title if declared else None,
        mode_probability=None,
        action=declared.action if declared else None,
        procedure=declared.procedure if declared else None,
    )


def deviation(bundle: Bundle, i: int, value: float) -> float:
    """Distance from the healthy median; 1 = the healthy 5 or 95 % point on that side.

    Where healthy rows do not vary (a count that is nearly always 0), one unit is the whole range,
    or, without any, the median's size or 1.
    """
    normal = bundle.normals.get(bundle.vector[i])
    if normal is None or None in normal.values():
        return 0.0
    low, median, high = normal["low"], normal["median"], normal["high"]
    side = high - median if value > median else median - low
    return abs(value - median) / (side or high - low or abs(median) or 1.0)


def feature_title(machine_class: MachineClass, name: str) -> str:
    """Words for a model input, for example `vibration kurtosis over 1 h`."""
    if name in machine_class.attributes:
        return (machine_class.attributes[name].title or name).lower()
    spec = machine_class.feature_named[name]
    return _title(spec.statistic, spec.channel, spec.window, machine_class.clock)


@lru_cache(maxsize=4_096)
def _title(statistic: Statistic, channel: str, window: int | None, clock: Clock) -> str:
    span = "" if window is None else duration(window, clock)
    return _STATISTICS[statistic].format(channel=channel.replace("_", " "), window=span)


def duration(us: int, clock: Clock) -> str:
    """`24 h`, `5 min`, `10 s`, or `30 cycles`."""
    seconds = us / US_PER_SECOND
    if clock is Clock.CYCLES:
        return f"{seconds:g} cycles"
    for size, unit in ((3_600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def every_reason(
    bundle: Bundle, vector: npt.ArrayLike, contributions: npt.ArrayLike
) -> tuple[Reason, ...]:
    """Each input's part in the probability, [d] in vector order."""
    values = np.asarray(vector, float).tolist()
    parts = np.asarray(contributions, float).tolist()
    return tuple(
        _reason(bundle.machine_class, bundle.normals, name, value, part)
        for name, value, part in zip(bundle.vector, values, parts, strict=True)
    )


def _reasons(
    bundle: Bundle, vector: npt.NDArray[np.float64], contributions: npt.NDArray[np.float64]
) -> tuple[Reason, ...]:
    parts: list[float] = contributions.tolist()
    order = sorted(range(len(parts)), key=lambda i: (-abs(parts[i]), i))
    normals = bundle.normals
    return tuple(
        _reason(bundle.machine_class, normals, bundle.vector[i], float(vector[i]), parts[i])
        for i in order[:TOP]
        if parts[i] != 0
    )


def _reason(
    machine_class: MachineClass,
    normals: Mapping[str, Mapping[str, float]],
    name: str,
    value: float,
    contribution: float | None,
) -> Reason:
    unit = machine_class.unit_of(name)
    categories = machine_class.attributes[name].values if name in machine_class.attributes else ()
    known = math.isfinite(value)
    if not known:
        text = "missing"
    elif categories:
        text = categories[int(value)]
    else:
        text = f"{_rounded(value)}{_spaced(unit)}"
    normal = normals.get(name) if not categories else None
    return Reason(
        feature=name,
        title=feature_title(machine_class, name),
        value=float(value) if known else None,
        text=text,
        unit=unit,
        normal=(normal["low"], normal["high"]) if normal else None,
        contribution=None if contribution is None else float(contribution),
    )


def _failure_mode(
    machine_class: MachineClass,
    modes: Sequence[str],
    mode_probability: npt.ArrayLike,
    reasons: Sequence[Reason],
) -> tuple[str | None, float | None]:
    """Likeliest mode and its share; without a mode model, the mode of the strongest reason."""
    values = np.asarray(mode_probability, float)
    if values.size and values.sum() > 0:
        best = int(values.argmax())
        return modes[best], float(values[best] / values.sum())
    raising = [r for r in reasons if r.contribution is not None and r.contribution > 0]
    return _mode_by_channel(machine_class, raising), None


def _mode_by_channel(machine_class: MachineClass, reasons: Sequence[Reason]) -> str | None:
    """First declared mode that the strongest possible reason's channel points to."""
    for reason in reasons:
        spec = machine_class.feature_named.get(reason.feature)
        for mode, declared in machine_class.failure_modes.items():
            if spec is not None and spec.channel in declared.channels:
                return mode
    return None


def _sentence(
    bundle: Bundle,
    risk: RiskLevel,
    probability: float,
    reasons: Sequence[Reason],
    mode_title: str | None,
) -> str:
    machine_class = bundle.machine_class
    horizon = duration(bundle.horizon_us, machine_class.clock)
    opening = f"Failure risk within {horizon} is {percent(probability)}"
    raising = [r for r in reasons if r.contribution is not None and r.contribution > 0]
    if risk is RiskLevel.NORMAL or not raising:
        return f"{opening}: no input points to a failure."
    because = " and ".join(_because(reason) for reason in raising[:2])
    pointing = f", mostly pointing to {_uncapitalised(mode_title)}" if mode_title else ""
    return f"{opening}: {because}{pointing}."


def _because(reason: Reason) -> str:
    text = f"{reason.title} is {reason.text}"
    if reason.value is None or reason.normal is None:
        return text
    low, high = _rounded(reason.normal[0]), _rounded(reason.normal[1])
    return f"{text} (normal {low})" if low == high else f"{text} (normal {low}–{high})"


def percent(probability: float) -> str:
    """`78 %`; small and large values keep their meaning: `0.4 %`, `below 0.1 %`, `above 99 %`."""
    share = 100 * probability
    if share < 0.1:  # noqa: PLR2004
        return "below 0.1 %"
    if share < 1:
        return f"{share:.1f} %"
    return "above 99 %" if share > 99 else f"{share:.0f} %"  # noqa: PLR2004


def _rounded(value: float) -> str:
    """Two or three digits that matter, no exponent for everyday sizes."""
    size = abs(value)
    if not math.isfinite(value):
        return "unknown"
    if size >= 1e6 or 0 < size < 1e-3:  # noqa: PLR2004
        return f"{value:.3g}"
    if value == int(value):
        return f"{int(value):,}"
    digits = 0 if size >= 100 else 1 if size >= 1 else 3  # noqa: PLR2004
    return f"{value:,.{digits}f}"


def _spaced(unit: str) -> str:
    return "" if unit in {"", "1"} else f" {unit}"


def _uncapitalised(text: str) -> str:
    """Lower first letter, unless the first word is an abbreviation."""
    return text if text[:2].isupper() else text[:1].lower() + text[1:]
