"""Machine classes as data: channels, windows, horizon, failure modes, actions."""

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
    parse_duration,
)

__all__ = [
    "Attribute",
    "Channel",
    "ChannelKind",
    "Clock",
    "Costs",
    "EventChannel",
    "FailureMode",
    "FeatureSpec",
    "MachineClass",
    "Statistic",
    "Threshold",
    "load_class",
    "load_classes",
    "parse_duration",
    "shipped_classes",
]
