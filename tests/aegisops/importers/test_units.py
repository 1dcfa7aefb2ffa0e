import pytest

from aegisops.errors import ConfigurationError
from aegisops.importers.units import conversion


@pytest.mark.parametrize(
    ("unit", "target", "value", "expected"),
    [
        ("degF", "°C", 212.0, 100.0),
        ("K", "degC", 273.15, 0.0),
        ("°C", "°F", 37.0, 98.6),
        ("kPa", "bar", 350.0, 3.5),
        ("psi", "kPa", 1.0, 6.894757293168),
        ("hp", "kW", 1.0, 0.74569987158227),
        ("g", "m/s2", 1.0, 9.80665),
        ("in/s", "mm/s", 1.0, 25.4),
        ("%", "1", 50.0, 0.5),
        ("Hz", "rpm", 50.0, 3000.0),
    ],
)
def test_a_unit_is_converted(unit, target, value, expected):
    factor, offset = conversion(unit, target)
    assert value * factor + offset == pytest.approx(expected, rel=1e-12, abs=1e-9)


def test_one_unit_stays_exactly_itself_even_if_unknown():
    assert conversion("furlong", "furlong") == (1.0, 0.0)
    assert conversion("degC", "°C") == (1.0, 0.0)


def test_an_unknown_or_foreign_unit_is_refused_with_a_hint():
    with pytest.raises(ConfigurationError, match=r"'kPaa' is not a known unit.*did you mean 'kPa'"):
        conversion("kPaa", "bar")
    with pytest.raises(ConfigurationError, match=r"is a temperature.*a pressure"):
        conversion("K", "bar")
