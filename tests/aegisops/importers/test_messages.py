import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from aegisops.importers.messages import reading_messages
from aegisops.names import READINGS_TOPIC
from aegisops.schemas import avro

KEY = ["machine_id", "channel", "ts"]
READING = st.tuples(
    st.sampled_from(["m1", "m2"]),
    st.sampled_from(["a", "b"]),
    st.integers(0, 40).map(lambda n: n * 1_000_000 + (n % 7 == 0)),
    st.one_of(st.none(), st.floats(-1e6, 1e6)),
    st.integers(0, 2),
)


def frame(rows):
    return pl.DataFrame(
        rows,
        schema={"machine_id": pl.Categorical, "channel": pl.Categorical, "ts": pl.Int64,
                "value": pl.Float64, "quality": pl.Int8},
        orient="row",
    )  # fmt: skip


def exploded(messages):
    blocks = messages.explode("blocks").unnest("blocks")
    at = pl.int_ranges(pl.col("values").list.len())
    return (
        blocks.with_columns(i=at)
        .explode("values", "i")
        .select(
            "machine_id", "channel", "quality",
            (pl.col("start_us") + pl.col("i") * pl.col("period_us").fill_null(0)).alias("ts"),
            pl.col("values").fill_nan(None).alias("value"),
        )
        .sort(KEY)
    )  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(READING, min_size=1, max_size=120, unique_by=lambda r: r[:3]),
    per_message=st.integers(1, 30),
)
def test_messages_hold_every_reading_once_at_its_time(rows, per_message):
    readings = frame(rows)
    messages = reading_messages(readings, 5, per_message)
    wanted = readings.cast({"machine_id": pl.String, "channel": pl.String, "quality": pl.Int32})
    assert exploded(messages).equals(wanted.select(exploded(messages).columns).sort(KEY))
    sizes = messages.select(
        pl.col("blocks").list.eval(pl.element().struct.field("values").list.len()).list.sum()
    ).to_series()
    assert sizes.max() <= per_message
    for _, own in messages.group_by("machine_id"):
        assert own["seq"].to_list() == list(range(own.height))
        starts = own["blocks"].list.eval(pl.element().struct.field("start_us")).list.min()
        assert starts.is_sorted()


def test_regular_values_become_one_block_and_a_gap_or_bad_value_begins_another():
    times = [0, 10, 20, 30, 50, 60, 65]
    readings = frame([("m", "a", t, float(t), 2 if t == 60 else 0) for t in times])
    (message,) = reading_messages(readings, 5, 100).to_dicts()
    blocks = [(b["start_us"], b["period_us"], b["values"]) for b in message["blocks"]]
    assert blocks == [
        (0, 10, [0.0, 10.0, 20.0, 30.0]),
        (50, None, [50.0]),
        (60, None, [60.0]),
        (65, None, [65.0]),
    ]


def test_a_message_fits_the_wire_contract():
    readings = frame([("m", "a", t * 10, None if t == 3 else 1.5, 2 if t == 3 else 0)
                      for t in range(6)])  # fmt: skip
    (message,) = reading_messages(readings, 5).drop("last_us").to_dicts()
    payload = avro.encode(READINGS_TOPIC, message, 7)
    decoded, failures = avro.decode_many(
        READINGS_TOPIC, [payload], lambda _: avro.contract(READINGS_TOPIC).text
    )
    assert not failures
    assert exploded(decoded)["value"].to_list() == [1.5, 1.5, 1.5, None, 1.5, 1.5]
