"""Units of measure and the factors between them; nothing else.

Each unit is (quantity, factor, offset): base = value · factor + offset. Factors are exact by
definition (SI Brochure, 9th edition; NIST SP 811, appendix B) but for psi and in.
"""

from __future__ import annotations

from difflib import get_close_matches

from aegisops.errors import ConfigurationError

_UNITS: dict[str, tuple[str, float, float]] = {
    # temperature, base °C
    "°C": ("temperature", 1.0, 0.0),
    "°F": ("temperature", 5 / 9, -160 / 9),
    "K": ("temperature", 1.0, -273.15),
    # pressure, base Pa
    "Pa": ("pressure", 1.0, 0.0),
    "hPa": ("pressure", 1e2, 0.0),
    "kPa": ("pressure", 1e3, 0.0),
    "MPa": ("pressure", 1e6, 0.0),
    "mbar": ("pressure", 1e2, 0.0),
    "bar": ("pressure", 1e5, 0.0),
    "psi": ("pressure", 6_894.757_293_168, 0.0),
    # power, base W
    "W": ("power", 1.0, 0.0),
    "kW": ("power", 1e3, 0.0),
    "MW": ("power", 1e6, 0.0),
    "hp": ("power", 745.699_871_582_270_2, 0.0),
    # voltage and current
    "mV": ("voltage", 1e-3, 0.0),
    "V": ("voltage", 1.0, 0.0),
    "kV": ("voltage", 1e3, 0.0),
    "mA": ("current", 1e-3, 0.0),
    "A": ("current", 1.0, 0.0),
    # rotation, base rpm; a frequency in Hz counts as revolutions per second
    "rpm": ("rotation", 1.0, 0.0),
    "Hz": ("rotation", 60.0, 0.0),
    # vibration: acceleration, velocity, displacement
    "m/s²": ("acceleration", 1.0, 0.0),
    "mm/s²": ("acceleration", 1e-3, 0.0),
    "g": ("acceleration", 9.806_65, 0.0),
    "m/s": ("velocity", 1e3, 0.0),
    "mm/s": ("velocity", 1.0, 0.0),
    "in/s": ("velocity", 25.4, 0.0),
    "µm": ("length", 1e-3, 0.0),
    "mm": ("length", 1.0, 0.0),
    "cm": ("length", 10.0, 0.0),
    "m": ("length", 1e3, 0.0),
    "in": ("length", 25.4, 0.0),
    "ft": ("length", 304.8, 0.0),
    # flow, base l/min
    "l/min": ("flow", 1.0, 0.0),
    "l/s": ("flow", 60.0, 0.0),
    "m³/h": ("flow", 1e3 / 60, 0.0),
    # force, torque, mass
    "N": ("force", 1.0, 0.0),
    "kN": ("force", 1e3, 0.0),
    "lbf": ("force", 4.448_221_615_260_5, 0.0),
    "Nm": ("torque", 1.0, 0.0),
    "lbf·ft": ("torque", 1.355_817_948_331_400_4, 0.0),
    "kg": ("mass", 1.0, 0.0),
    "lb": ("mass", 0.453_592_37, 0.0),
    "t": ("mass", 1e3, 0.0),
    # time as a measured quantity
    "s": ("duration", 1.0, 0.0),
    "min": ("duration", 60.0, 0.0),
    "h": ("duration", 3_600.0, 0.0),
    "years": ("duration", 31_557_600.0, 0.0),
    # shares
    "1": ("share", 1.0, 0.0),
    "%": ("share", 0.01, 0.0),
}

_ALIASES = {
    "degC": "°C", "C": "°C", "celsius": "°C", "℃": "°C",
    "degF": "°F", "F": "°F", "fahrenheit": "°F", "℉": "°F",
    "degK": "K", "kelvin": "K", "PSI": "psi", "psia": "psi", "volt": "V", "volts": "V",
    "RPM": "rpm", "1/min": "rpm", "r/min": "rpm", "m/s2": "m/s²", "m/s^2": "m/s²",
    "mm/s2": "mm/s²", "um": "µm", "μm": "µm", "L/min": "l/min", "L/s": "l/s", "m3/h": "m³/h",
    "N·m": "Nm", "N.m": "Nm", "lbf.ft": "lbf·ft", "lb-ft": "lbf·ft", "Kw": "kW", "KW": "kW",
    "percent": "%", "-": "1", "": "1", "sec": "s", "hours": "h", "hour": "h", "year": "years",
}  # fmt: skip


def conversion(unit: str, target: str) -> tuple[float, float]:
    """Factor and offset with `target value = value · factor + offset`; (1, 0) for one unit.

    Equal names need not be known. Raises `ConfigurationError` when the two units differ and no
    conversion is known, or when they measure different quantities.
    """
    source, wanted = (_ALIASES.get(name.strip(), name.strip()) for name in (unit, target))
    if source == wanted:
        return 1.0, 0.0
    for name in (source, wanted):
        if name not in _UNITS:
            near = get_close_matches(name, [*_UNITS, *_ALIASES], n=1, cutoff=0.5)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ConfigurationError(
                f"no conversion from {unit!r} to {target!r} is known: {name!r} is not a known "
                f"unit{hint}. Known units: {', '.join(_UNITS)}. If both mean the same, write "
                f"{target!r}."
            )
    (quantity, factor, offset), (wanted_quantity, wanted_factor, wanted_offset) = (
        _UNITS[source],
        _UNITS[wanted],
    )
    if quantity != wanted_quantity:
        raise ConfigurationError(
            f"{unit!r} is a {quantity}, the machine class wants {target!r}, a {wanted_quantity}"
        )
    return factor / wanted_factor, (offset - wanted_offset) / wanted_factor
