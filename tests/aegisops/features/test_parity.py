"""Stream = batch = oracle, on whatever a shop floor can send."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegisops.features import batch
from aegisops.features.online import OnlineFeatures
from aegisops.machines import MachineClass
from tests.aegisops.features import oracle

SECOND = 1_000_000
START = 1_764_000_000 * SECOND

CLASS = MachineClass.model_validate(
    {
        "name": "press",
        "title": "Press",
        "horizon": "24h",
        "step": "2m",
        "stale_after": "1h",
        "channels": {
            "force": {"unit": "kN", "period": "1s", "limits": [-1e9, 1e9], "baseline": 12.5},
            "strokes": {"unit": "strokes", "kind": "counter", "period": "1s", "limits": [0, 1e9]},
        },
        "events": {
            "jam": {"type": "error", "code": "jam"},
            "service": {"type": "maintenance"},
        },
        "attributes": {"age": {"unit": "years"}, "maker": {"values": ["left", "right"]}},
        "windows": {"1m": "10s", "10m": "60s"},
        "statistics": {
            "force": [
                f"{s}_{w}"
                for w in ("1m", "10m")
                for s in (
                    [
                        "mean",
                        "std",
                        "rms",
                        "kurtosis",
                        "min",
                        "max",
                        "last",
                        "crest",
                        "rate_of_change",
                        "deviation",
                    ]
                )
            ],
            "strokes": ["increase_1m", "increase_10m", "cumulative", "last_10m"],
            "jam": ["count_10m"],
            "service": ["time_since"],
        },
        "failure_modes": {"crack": {"title": "Crack", "action": "Look"}},
    }
)
ATTRIBUTES = {"a": {"age": 4.0, "maker": "right"}, "b": {"age": None, "maker": "unheard of"}}


@st.composite
def streams(draw):
    """Arrival-ordered values: late, out of order, repeated, null, bad, NaN, resets, offset data."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    n = draw(st.integers(1, 120))
    offset, spread = draw(st.sampled_from([(0.0, 1.0), (1e4, 0.01), (-3e5, 40.0), (0.0, 0.0)]))
    pace = draw(st.sampled_from([0.4, 7.0, 90.0, 1500.0]))
    seconds = np.cumsum(rng.exponential(pace, n))
    ts = START + (seconds * SECOND).astype(np.int64)
    late = rng.random(n) < draw(st.sampled_from([0.0, 0.3]))
    ts -= np.where(late, (rng.exponential(4 * pace + 60, n) * SECOND).astype(np.int64), 0)
    if draw(st.booleans()):
        ts = ts // SECOND * SECOND  # many equal times
    channel = rng.choice(["force", "strokes", "jam", "service"], n, p=[0.6, 0.3, 0.06, 0.04])
    value = offset + spread * rng.standard_normal(n)
    count = np.floor(seconds) % draw(st.sampled_from([50, 10_000]))  # resets at the modulus
    value = np.where(channel == "strokes", count, value)
    value = np.where(np.isin(channel, ["jam", "service"]), 1.0, value)
    rows = pl.DataFrame(
        {
            "machine_id": rng.choice(["a", "b"], n),
            "channel": channel,
            "ts": ts,
            "value": value,
            "quality": rng.choice([0, 1, 2], n, p=[0.9, 0.05, 0.05]).astype(np.int8),
        }
    )
    holes = pl.Series(rng.random(n) < 0.05)
    rows = rows.with_columns(pl.when(holes).then(None).otherwise("value").alias("value"))
    again = rng.integers(0, n, draw(st.integers(0, 5)))
    return pl.concat([rows, rows[again]]), draw(st.integers(1, 7))


def assert_close(got, want):
    for spec, x, (y, scale) in zip(CLASS.features, got, want, strict=False):
        assert np.isnan(x) == np.isnan(y), f"{spec.name}: {x} is not {y}"
        assert np.isnan(y) or abs(x - y) <= 1e-9 * max(scale, abs(y)), f"{spec.name}: {x} != {y}"


@settings(max_examples=60, deadline=None)
@given(streams())
def test_stream_equals_batch_equals_oracle(stream):
    rows, flushes = stream
    engine = OnlineFeatures(CLASS, ATTRIBUTES)
    late = [
        engine.update(rows[i : i + len(rows) // flushes + 1]).late
        for i in range(0, len(rows), len(rows) // flushes + 1)
    ]
    counted = rows.filter(~pl.concat(late))
    online = engine.vectors(engine.machines)
    tiles = batch.tiles_from_values(counted, CLASS)
    from_tiles = batch.features_from_tiles(tiles, CLASS, ATTRIBUTES)
    for machine_id, t, vector, coverage in online.iter_rows():
        point = pl.DataFrame({"machine_id": [machine_id], "ts": [t]})
        direct = batch.features_at(counted, CLASS, ATTRIBUTES, point)
        want = oracle.vector(counted, CLASS, machine_id, t)
        assert_close(vector, want)
        assert_close(direct["vector"][0].to_list(), want)
        np.testing.assert_array_equal(vector[-2:], direct["vector"][0].to_list()[-2:])
        assert coverage == pytest.approx(direct["coverage"][0])
        last = from_tiles.filter(
            (pl.col("machine_id") == machine_id) & (pl.col("ts").cast(pl.Int64) == t)
        )
        if not last.is_empty():
            assert_close(last["vector"][0].to_list(), want)


@settings(max_examples=25, deadline=None)
@given(streams())
def test_windowed_features_need_no_late_value(stream):
    rows, _ = stream
    engine = OnlineFeatures(CLASS, ATTRIBUTES)
    engine.update(rows)
    windowed = [i for i, s in enumerate(CLASS.features) if s.window is not None]
    for machine_id, t, vector, _ in engine.vectors(engine.machines).iter_rows():
        want = oracle.vector(rows, CLASS, machine_id, t)
        for i in windowed:
            x, (y, scale) = vector[i], want[i]
            assert np.isnan(x) == np.isnan(y)
            assert np.isnan(y) or abs(x - y) <= 1e-9 * max(scale, abs(y))


@settings(max_examples=25, deadline=None)
@given(streams(), st.integers(1, 100))
def test_every_row_of_the_batch_equals_the_oracle_and_knows_no_future(stream, share):
    rows, _ = stream
    features = batch.features_from_tiles(batch.tiles_from_values(rows, CLASS), CLASS, ATTRIBUTES)
    for machine_id, t, vector in features.select(
        "machine_id", pl.col("ts").cast(pl.Int64), "vector"
    ).iter_rows():
        assert_close(vector, oracle.vector(rows, CLASS, machine_id, t))
    cut = int(rows["ts"].quantile(share / 100))
    changed = rows.with_columns(
        pl.when(pl.col("ts") > cut).then(pl.col("value") * -7 + 1).otherwise("value").alias("value")
    )
    again = batch.features_from_tiles(batch.tiles_from_values(changed, CLASS), CLASS, ATTRIBUTES)
    before = pl.col("ts").cast(pl.Int64) <= cut
    assert features.filter(before).equals(again.filter(before), null_equal=True)


@settings(max_examples=25, deadline=None)
@given(streams())
def test_a_restarted_engine_goes_on_from_its_dump(stream):
    rows, _ = stream
    half = len(rows) // 2
    steady, first = OnlineFeatures(CLASS, ATTRIBUTES), OnlineFeatures(CLASS, ATTRIBUTES)
    store: dict[str, dict[str, bytes]] = {}
    for engine in (steady, first):
        for part in (rows[: half // 2], rows[half // 2 : half]):
            update = engine.update(part)
            if engine is first:
                for m in update.machines:
                    store.setdefault(m, {}).update(first.dump(m))
    second = OnlineFeatures(CLASS, ATTRIBUTES)
    for m, parts in store.items():
        second.load(m, parts)
    steady.update(rows[half:])
    second.update(rows[half:])
    ids = sorted(steady.machines)
    assert steady.vectors(ids).equals(second.vectors(ids), null_equal=True)


@settings(max_examples=30, deadline=None)
@given(streams(), st.randoms())
def test_tiles_do_not_depend_on_the_order_of_rows(stream, random):
    rows, _ = stream
    order = list(range(len(rows)))
    random.shuffle(order)
    assert batch.tiles_from_values(rows, CLASS).equals(batch.tiles_from_values(rows[order], CLASS))


def test_forgotten_machines_leave_the_others_untouched():
    rows = pl.DataFrame(
        {
            "machine_id": ["a", "b"] * 20,
            "channel": "force",
            "ts": [START + i * SECOND for i in range(40)],
            "value": [float(i) for i in range(40)],
            "quality": [0] * 40,
        }
    )
    engine = OnlineFeatures(CLASS, ATTRIBUTES)
    engine.update(rows)
    before = engine.vectors(["b"])
    engine.forget(["a"])
    assert engine.machines == ("b",)
    assert engine.vectors(["b"]).equals(before, null_equal=True)


def test_values_of_one_time_have_no_slope():
    rows = pl.DataFrame(
        {
            "machine_id": ["a"] * 5,
            "channel": "force",
            "ts": START + 417_777,
            "value": -1.037935,
            "quality": 0,
        }
    )
    engine = OnlineFeatures(CLASS, ATTRIBUTES)
    engine.update(rows)
    slope = CLASS.vector.index("force_rate_of_change_1m")
    assert np.isnan(engine.vectors(["a"])["vector"][0][slope])
