"""A machine's model inputs as the API uses them, or why there are none. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
import numpy.typing as npt

Source = Literal["cache", "lake", "request", "none"]


@dataclass(frozen=True, slots=True)
class Vector:
    """Model inputs of one machine.

    `values`: float64 [d] in the class's vector order, NaN = missing. `at`: time of the last reading
    inside, µs on the machine's clock; None when the caller gave the values. `coverage`: lowest
    share of expected readings, 0 to 1.
    """

    values: npt.NDArray[np.float64]
    feature_set: str
    at: int | None
    coverage: float
    source: Source


class Cause(StrEnum):
    """Why an answer abstains, or comes from a lower rung. Stable words for programs."""

    NO_READINGS = "no_readings"
    STALE = "stale"
    LOW_COVERAGE = "low_coverage"
    TIME_BUDGET = "time_budget"
    LAKE_AWAY = "lake_away"
    NO_MODEL = "no_model"
    FEATURE_SET = "feature_set_mismatch"
    MODEL_FAILED = "model_failed"
    MODEL_SLOW = "model_too_slow"
    NO_RULE = "no_rule_applies"


@dataclass(frozen=True, slots=True)
class Unusable:
    """There is no vector to judge: a stable cause, a sentence for people, and the vector's age."""

    cause: Cause
    detail: str
    at: int | None = None
