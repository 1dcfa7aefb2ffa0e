"""Machine classes as data: channels, windows, horizon, failure modes, actions."""

from aegisops.machines.alarms import AlarmDefinition, AlarmSource, DataFault, StateRule
from aegisops.machines.durations import parse_duration
from aegisops.machines.loader import load_class, load_classes, shipped_classes
from aegisops.machines.model import (
    Attribute,
    Channel,
    ChannelKind,
    Clock,
    Costs,
    EventChannel,
    FailureMode,
    FeatureSpec,
    MachineClass,
    Statistic,
    Threshold,
)

__all__ = [
    "AlarmDefinition",
    "AlarmSource",
    "Attribute",
    "Channel",
    "ChannelKind",
    "Clock",
    "Costs",
    "DataFault",
    "EventChannel",
    "FailureMode",
    "FeatureSpec",
    "MachineClass",
    "StateRule",
    "Statistic",
    "Threshold",
    "load_class",
    "load_classes",
    "parse_duration",
    "shipped_classes",
]
