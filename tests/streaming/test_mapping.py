"""The gateway's mapping file: what it means, and that every mistake is named."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegisops.errors import ConfigurationError
from aegisops.machines import shipped_classes
from streaming.mapping import Place, load_mapping, targets

GOOD = """
gateway = "hall-a"

[[opcua]]
name = "press-line"
endpoint = "opc.tcp://127.0.0.1:4840"

[[opcua.machines]]
class = "cnc_spindle"
ids = ["spindle-008..010", "extra"]
[opcua.machines.channels]
vibration = { node = "nsu=urn:x;s={machine}.vib", unit = "g", sample_period = "2ms" }
temperature = { node = "ns=2;s={machine}.t", unit = "°F" }
[opcua.machines.events]
stop = { node = "ns=2;s={machine}.fault", type = "failure" }

[[mqtt]]
name = "broker"
host = "broker.example"
ca = "ca.pem"
[[mqtt.machines]]
class = "cnc_spindle"
ids = ["m-1"]
device = "plant/edge/{machine}"
[mqtt.machines.channels]
power = { topic = "plant/{machine}/state", field = "drive.power", unit = "W" }
temperature = { metric = "Temp", unit = "K" }
"""


def read(tmp_path, text):
    path = tmp_path / "mapping.toml"
    path.write_text(text)
    return load_mapping(path)


def test_a_mapping_says_what_each_place_means(tmp_path):
    mapping = read(tmp_path, GOOD)
    opcua = targets(mapping.opcua[0], shipped_classes())
    assert len(opcua) == 4 * 3
    (vibration,) = opcua[Place("node", "nsu=urn:x;s=spindle-009.vib")]
    assert (vibration.machine_id, vibration.channel) == ("spindle-009", "vibration")
    assert vibration.factor == pytest.approx(9.80665)
    assert vibration.period_us == 2_000
    (temperature,) = opcua[Place("node", "ns=2;s=extra.t")]
    assert 212 * temperature.factor + temperature.offset == pytest.approx(100)
    (event,) = opcua[Place("node", "ns=2;s=extra.fault")]
    assert event.event_type == "failure"
    mqtt = targets(mapping.mqtt[0], shipped_classes())
    (power,) = mqtt[Place("topic", "plant/m-1/state")]
    assert (power.factor, power.field) == (1e-3, ("drive", "power"))
    assert Place("metric", "plant/edge/m-1", "Temp") in mqtt
    assert mapping.mqtt[0].ca == tmp_path / "ca.pem"


def read_whole(tmp_path, text):
    mapping = read(tmp_path, text)
    for source in (*mapping.opcua, *mapping.mqtt):
        targets(source, shipped_classes())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("opc.tcp://", "http://"), "opcua.0.endpoint"),
        (('class = "cnc_spindle"', 'class = "lathe"'), "no machine class 'lathe'; there are:"),
        (('unit = "°F"', 'unit = "bar"'), "'bar' is a pressure"),
        (('unit = "°F"', 'unit = "grad"'), "channels.temperature: no conversion"),
        (("temperature = { node", "warmth = { node"), "no such channel; it has: vibration"),
        (('node = "ns=2;s={machine}.t"', 'topic = "x"'), "give exactly one of node"),
        (("{machine}.vib", "vib"), "4 machines, so write {machine}"),
        (('"spindle-008..010"', '"spindle-010..008"'), "the range must go up"),
        (('type = "failure"', 'type = "explosion"'), "is no event; use one of maintenance"),
        (('device = "plant/edge/{machine}"', ""), "metrics need `device"),
        (("plant/{machine}/state", "plant/+/state"), "without + and #"),
        (('name = "broker"', 'name = "press-line"'), "a name of its own"),
        (('ca = "ca.pem"', "tls = false\nca = 'x'"), "contradicts ca"),
        (('ca = "ca.pem"', "certificate = 'x'"), "give both certificate and private_key"),
        (('gateway = "hall-a"', "gateway = hall"), "not valid TOML"),
        (('gateway = "hall-a"', 'gateway = "hall-a"\ncolour = 1'), "colour: Extra inputs"),
        (('"extra"]', '"spindle-008"]'), "spindle-008 vibration comes from two places"),
    ],
)
def test_every_mistake_is_named(tmp_path, change, complaint):
    old, new = change
    assert old in GOOD
    with pytest.raises(ConfigurationError) as caught:
        read_whole(tmp_path, GOOD.replace(old, new))
    assert complaint in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml: cannot be read"):
        load_mapping(tmp_path / "nowhere.toml")


LINES = st.sampled_from([line for line in GOOD.splitlines() if line])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(LINES, LINES, st.text(max_size=20)), max_size=25), st.binary(max_size=30))
def test_no_file_does_anything_but_load_or_complain(tmp_path_factory, lines, tail):
    path = tmp_path_factory.mktemp("m") / "mapping.toml"
    path.write_bytes("\n".join(lines).encode() + tail)
    try:
        mapping = load_mapping(path)
        for source in (*mapping.opcua, *mapping.mqtt):
            targets(source, shipped_classes())
    except ConfigurationError as error:
        assert str(error)  # noqa: PT017 - both ways are right
