"""What a machine class may declare, validated. Reading files is the loader's work.

Alarm entries are in `alarms`, positions on a machine's clock in `durations`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aegisops.machines.alarms import AlarmDefinition, AlarmSource, StateRule
from aegisops.machines.durations import US_PER_HOUR as US_PER_HOUR  # noqa: PLC0414 - known here
from aegisops.machines.durations import US_PER_SECOND as US_PER_SECOND  # noqa: PLC0414
from aegisops.machines.durations import Duration, parse_duration

_NAME = r"^[a-z][a-z0-9_]*$"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Clock(StrEnum):
    """What a position on the machine's clock counts."""

    TIME = "time"
    CYCLES = "cycles"


class ChannelKind(StrEnum):
    """How a channel's values arrive and what they mean."""

    SCALAR = "scalar"
    WAVEFORM = "waveform"  # short captures with a sampling period
    COUNTER = "counter"  # never falls but for a reset


class Statistic(StrEnum):
    """What a feature computes from the tiles of one channel."""

    MEAN = "mean"
    STD = "std"
    RMS = "rms"
    KURTOSIS = "kurtosis"
    MIN = "min"
    MAX = "max"
    LAST = "last"
    CREST = "crest"  # max |x| / RMS
    RATE_OF_CHANGE = "rate_of_change"  # least-squares slope per hour (per cycle on a cycle clock)
    DEVIATION = "deviation"  # mean minus the channel's baseline
    COUNT = "count"
    INCREASE = "increase"  # of a counter, resets bridged
    TIME_SINCE = "time_since"  # hours (cycles) since the last event, over all history
    CUMULATIVE = "cumulative"  # counter's increase over all history


LIFETIME_STATISTICS = frozenset({Statistic.TIME_SINCE, Statistic.CUMULATIVE})
EVENT_STATISTICS = frozenset({Statistic.COUNT, Statistic.TIME_SINCE})
COUNTER_STATISTICS = frozenset({Statistic.INCREASE, Statistic.CUMULATIVE, Statistic.LAST})


class Channel(_Frozen):
    """One measured quantity."""

    title: str = ""
    unit: str
    kind: ChannelKind = ChannelKind.SCALAR
    period: Duration
    """Expected time between readings (between captures for a waveform)."""
    sample_period: Duration | None = None
    """Waveforms: time between samples of one capture."""
    samples: int = 1
    """Waveforms: samples in one capture."""
    limits: tuple[float, float]
    """Physical limits; a value outside cannot be true and is quarantined."""
    baseline: float | None = None
    """Value in healthy operation, for `deviation`."""
    max_rate: float | None = None
    """Counters: fastest credible increase per second; a faster jump is quarantined."""


class EventChannel(_Frozen):
    """Events that features count or measure the distance to."""

    title: str = ""
    type: str
    code: str | None = None
    """Only events with this code; all of the type when absent."""


class Attribute(_Frozen):
    """A fixed property of a machine, used as a feature."""

    title: str = ""
    unit: str = ""
    values: tuple[str, ...] = ()
    """Categories in order; the feature is the index. Numeric when empty."""


class FailureMode(_Frozen):
    """A way to fail, named as in the failure events' `code`, and what to do about it."""

    title: str
    action: str
    procedure: str | None = None
    channels: tuple[str, ...] = ()
    """Channels whose features point to this mode, for rungs that have no mode model."""


class Threshold(_Frozen):
    """A limit rule on one feature; the last rung of the ladder."""

    feature: str
    warning: float
    alarm: float
    direction: str = Field(default="above", pattern="^(above|below)$")
    failure_mode: str | None = None


class Costs(_Frozen):
    """Relative costs that turn a probability into an alert threshold."""

    missed_failure: float = 100.0
    false_alarm: float = 5.0
    planned_stop: float = 20.0


class FeatureSpec(_Frozen):
    """One feature: a statistic of a channel over a window. Its name is derived."""

    name: str
    channel: str
    statistic: Statistic
    window: int | None
    """Window length in microseconds; None = all history."""
    tile: int | None
    """Grid the window's start is aligned to, in microseconds; None with an unbounded window."""
    unit: str


class MachineClass(_Frozen):
    """Everything the product knows about a kind of machine. `features` is the ordered vector."""

    name: str = Field(pattern=_NAME)
    version: int = 1
    title: str
    clock: Clock = Clock.TIME
    horizon: Duration
    step: Duration
    """One training row per machine and step."""
    stale_after: Duration
    """A feature vector older than this is not used to predict."""
    min_coverage: float = 0.5
    """Below this share of expected readings an answer abstains."""
    censor_on_maintenance: bool = True
    """Maintenance inside the horizon hides what would have happened: such rows get no label."""
    channels: dict[str, Channel]
    events: dict[str, EventChannel] = {}
    attributes: dict[str, Attribute] = {}
    windows: dict[str, Duration]
    """Window length (as text, `1h`) to the tile its start is aligned to."""
    statistics: dict[str, tuple[str, ...]]
    """Channel or event to statistics: `rms_1h`, `count_24h`, `time_since`, `cumulative`."""
    failure_modes: dict[str, FailureMode]
    thresholds: tuple[Threshold, ...] = ()
    states: dict[str, StateRule] = {}
    """States of the machine that alarms may be suppressed in, such as `stopped`."""
    alarms: tuple[AlarmDefinition, ...] = ()
    """The class's part of the master alarm database; no entry, no alarm."""
    costs: Costs = Costs()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for window, tile in self.windows.items():
            if parse_duration(window) % tile or self.step % tile:
                raise ValueError(f"windows.{window}: its tile must divide the window and the step")
        names = [spec.name for spec in self.features]
        for rule in self.thresholds:
            if rule.feature not in names:
                raise ValueError(f"thresholds: {rule.feature!r} is not a feature of {self.name}")
        clash = set(self.channels) & set(self.events)
        if clash:
            raise ValueError(f"events: {sorted(clash)} are channels too; choose other names")
        for state, told in self.states.items():
            if told.feature not in names:
                raise ValueError(f"states.{state}: {told.feature!r} is not a feature")
        seen: set[str] = set()
        for entry in self.alarms:
            self._check_alarm(entry, names)
            if entry.id in seen:
                raise ValueError(f"alarms: two entries are called {entry.id!r}")
            seen.add(entry.id)
        return self

    def _check_alarm(self, entry: AlarmDefinition, features: list[str]) -> None:
        where = f"alarms.{entry.id}"
        if entry.source is AlarmSource.SYSTEM:
            raise ValueError(f"{where}: a system alarm belongs to no machine class")
        if entry.feature is not None and entry.feature not in features:
            raise ValueError(f"{where}: {entry.feature!r} is not a feature of {self.name}")
        if entry.channel is not None and entry.channel not in self.channels:
            raise ValueError(f"{where}: no channel {entry.channel!r} is declared")
        if entry.failure_mode is not None and entry.failure_mode not in self.failure_modes:
            raise ValueError(f"{where}: no failure mode {entry.failure_mode!r} is declared")
        unknown = sorted(set(entry.suppressed_in) - set(self.states))
        if unknown:
            raise ValueError(f"{where}: suppressed_in names no declared state: {unknown}")

    @cached_property
    def features(self) -> tuple[FeatureSpec, ...]:
        """Features in vector order: statistics as declared, then attributes.

        Raises `ValueError` naming the entry for an unknown channel, statistic or window.
        """
        specs = [
            self._spec(channel, entry)
            for channel, entries in self.statistics.items()
            for entry in entries
        ]
        return tuple(specs)

    @cached_property
    def vector(self) -> tuple[str, ...]:
        """Names of the model's inputs, in order: features, then attributes."""
        return (*(spec.name for spec in self.features), *self.attributes)

    @cached_property
    def feature_named(self) -> Mapping[str, FeatureSpec]:
        """Features by name; attributes are not among them."""
        return {spec.name: spec for spec in self.features}

    @cached_property
    def feature_set(self) -> str:
        """Version of the vector's meaning, stored beside every vector."""
        return f"{self.name}@{self.version}"

    @property
    def lateness(self) -> int:
        """How far behind the machine's newest reading one may arrive and still count, in µs."""
        return max(parse_duration(window) for window in self.windows)

    @property
    def hour(self) -> int:
        """Microseconds of the unit for rates and elapsed values: an hour, or one cycle."""
        return US_PER_SECOND if self.clock is Clock.CYCLES else US_PER_HOUR

    def unit_of(self, name: str) -> str:
        """Unit of a model input by name."""
        spec = self.feature_named.get(name)
        return self.attributes[name].unit if spec is None else spec.unit

    def base_tile(self, channel: str) -> int:
        """Tile size stored in silver/tiles for this channel: the finest any window needs, in µs."""
        tiles = [s.tile for s in self.features if s.channel == channel and s.tile is not None]
        return min(tiles, default=min(self.windows.values()))

    def encode_attributes(self, attributes: Mapping[str, str | float | None]) -> list[float]:
        """Attribute part of the vector; NaN where a value is missing or not in `values`."""
        encoded = []
        for name, attribute in self.attributes.items():
            value = attributes.get(name)
            if value is None or (attribute.values and str(value) not in attribute.values):
                encoded.append(float("nan"))
            else:
                index = attribute.values.index(str(value)) if attribute.values else value
                encoded.append(float(index))
        return encoded

    def _spec(self, channel: str, entry: str) -> FeatureSpec:
        where = f"statistics.{channel}: {entry!r}"
        if channel not in self.channels and channel not in self.events:
            raise ValueError(f"{where}: no channel or event {channel!r} is declared")
        if entry in LIFETIME_STATISTICS:
            statistic, window, tile = Statistic(entry), None, None
            name = f"{entry}_{channel}"
        else:
            word, _, text = entry.rpartition("_")
            if word not in set(Statistic) - LIFETIME_STATISTICS:
                raise ValueError(f"{where}: unknown statistic; use one of {sorted(Statistic)}")
            if text not in self.windows:
                raise ValueError(f"{where}: window {text!r} is not in [windows]")
            statistic, window, tile = Statistic(word), parse_duration(text), self.windows[text]
            name = f"{channel}_{word}_{text}"
        self._check_kind(channel, statistic, where)
        unit = self._unit(channel, statistic)
        return FeatureSpec(
            name=name, channel=channel, statistic=statistic, window=window, tile=tile, unit=unit
        )

    def _check_kind(self, channel: str, statistic: Statistic, where: str) -> None:
        if channel in self.events:
            if statistic not in EVENT_STATISTICS:
                raise ValueError(f"{where}: events have only {sorted(EVENT_STATISTICS)}")
            return
        declared = self.channels[channel]
        is_counter = declared.kind is ChannelKind.COUNTER
        if is_counter != (statistic in COUNTER_STATISTICS) and statistic is not Statistic.LAST:
            raise ValueError(f"{where}: does not fit a {declared.kind} channel")
        if statistic is Statistic.DEVIATION and declared.baseline is None:
            raise ValueError(f"{where}: channels.{channel} has no baseline")

    def _unit(self, channel: str, statistic: Statistic) -> str:
        elapsed = "cycles" if self.clock is Clock.CYCLES else "h"
        if statistic is Statistic.TIME_SINCE:
            return elapsed
        if statistic in {Statistic.KURTOSIS, Statistic.CREST, Statistic.COUNT}:
            return "1"
        unit = self.channels[channel].unit
        if statistic is Statistic.RATE_OF_CHANGE:
            return f"{unit}/{'cycle' if self.clock is Clock.CYCLES else 'h'}"
        return unit
