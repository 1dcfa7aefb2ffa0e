from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest
import redis

from aegisops import names
from aegisops.embedded import ports
from aegisops.errors import Conflict, ServiceUnavailable
from aegisops.online_store import (
    AsyncOnlineStore,
    FeatureVector,
    Machine,
    OnlineStore,
    PartitionUpdate,
    Position,
    connect,
)
from aegisops.settings import RedisSettings

NAMES = {"press@2": ("force_mean_1h", "v", "ts")}


def vector(machine_id="m-1", *values, ts=7):
    return FeatureVector(machine_id, "press@2", ts, np.array(values or (1.5, math.nan, 0.1)), 0.75)


@pytest.fixture
def url(redis_server):
    return redis_server.url.removesuffix("/0") + "/8"


@pytest.fixture
def client(url):
    client = redis.Redis.from_url(url, protocol=2)
    client.flushdb()
    yield client
    client.close()


@pytest.fixture
def store(client):
    return OnlineStore(client, feature_ttl_seconds=100)


def test_a_vector_comes_back_bit_for_bit_with_its_meaning(store, client):
    store.write_features([vector()], NAMES)
    found = store.features("m-1")
    assert found.vector.tobytes() == np.array([1.5, math.nan, 0.1]).tobytes()
    assert (found.feature_set, found.ts, found.coverage) == ("press@2", 7, 0.75)
    assert client.hget(names.features_key("m-1"), "force_mean_1h") == b"1.5"
    assert 0 < client.ttl(names.features_key("m-1")) <= 100


def test_what_is_not_there_is_none_and_never_zeros(store, client):
    assert store.features("nobody") is None
    assert store.machine("nobody") is None
    client.hset(names.features_key("half"), "v", b"\0" * 8)
    assert store.features("half") is None
    assert store.features_of(["nobody", "half"]) == {}
    assert store.features_of([]) == {}
    assert store.machines([]) == {}


def test_registrations_are_listed_and_replaced(store):
    press = Machine("m-1", "press", "north", "hall 2", {"age": 4.5, "maker": "x", "note": None})
    store.register([press, Machine("m-0", "press")])
    assert store.machine("m-1") == press
    store.register([Machine("m-1", "press", "south")])
    assert store.machine("m-1").site == "south"
    assert store.machine_ids() == ["m-0", "m-1"]


def test_a_partitions_update_appears_as_a_whole(store):
    partition = ("t", 3)
    store.write(
        PartitionUpdate(
            positions={partition: Position("cluster/topic id", 41)},
            expected={partition: None},
            states={"m-1": {"head": b"\x00\xff", "r:x:1:2": b"tile"}},
            features=[vector()],
            feature_names=NAMES,
            raw={"m-1": b"[1]"},
        )
    )
    assert store.positions([partition, ("t", 4)]) == {partition: Position("cluster/topic id", 41)}
    assert store.states(["m-1", "m-2"]) == {
        "m-1": {"head": b"\x00\xff", "r:x:1:2": b"tile"},
        "m-2": {},
    }
    assert store.features("m-1").ts == 7
    assert [blob for _, blob in store.raw("m-1")] == [b"[1]"]


@pytest.mark.parametrize("found", [None, Position("c", 4), Position("c", 6), Position("d", 5)])
def test_an_update_on_another_position_than_the_stored_one_changes_nothing(store, found):
    partition = ("t", 0)
    if found:
        store.write(PartitionUpdate({partition: found}, {partition: None}))
    update = PartitionUpdate(
        positions={partition: Position("c", 9)},
        expected={partition: Position("c", 5)},
        features=[vector()],
    )
    with pytest.raises(Conflict):
        store.write(update)
    assert store.positions([partition]).get(partition) == found
    assert store.features("m-1") is None


def test_a_position_that_moves_during_the_write_refuses_it(store, client):
    class Overtaken(OnlineStore):
        def _put(self, pipe, update):
            client.set(names.position_key("t", 0), "c 6")
            super()._put(pipe, update)

    store.write(PartitionUpdate({("t", 0): Position("c", 5)}, {("t", 0): None}))
    late = Overtaken(client)
    with pytest.raises(Conflict):
        late.write(PartitionUpdate({("t", 0): Position("c", 7)}, {("t", 0): Position("c", 5)}))
    assert store.positions([("t", 0)]) == {("t", 0): Position("c", 6)}


def test_forgotten_state_is_replaced_as_a_whole(store):
    first = Position("c", 1)
    store.write(PartitionUpdate({("t", 0): first}, {("t", 0): None}, {"m": {"a": b"1"}}))
    store.write(
        PartitionUpdate({("t", 0): first}, {("t", 0): first}, {"m": {"b": b"2"}}, forget=["m"])
    )
    assert store.states(["m"]) == {"m": {"b": b"2"}}
    store.drop_positions([("t", 0)])
    assert store.positions([("t", 0)]) == {}


def test_the_raw_buffer_is_capped_and_expires(store, client):
    position = None
    for i in range(750):
        update = PartitionUpdate(
            {("t", 0): Position("c", i)}, {("t", 0): position}, raw={"m": b"%d" % i}
        )
        store.write(update)
        position = Position("c", i)
    assert client.xlen(names.raw_key("m")) < 720
    assert [blob for _, blob in store.raw("m", 2)] == [b"748", b"749"]
    assert client.ttl(names.raw_key("m")) > 0


def test_a_server_that_is_away_is_a_retryable_failure():
    store = OnlineStore(connect(RedisSettings(url=f"redis://127.0.0.1:{ports.free_port()}/0")))
    for call in (
        store.ping,
        lambda: store.features("m"),
        lambda: store.register([Machine("m", "c")]),
    ):
        with pytest.raises(ServiceUnavailable, match="AEGIS_REDIS__URL"):
            call()


def test_the_event_loops_reader_gives_the_same_answers(store, url):
    store.write_features([vector("m-1"), vector("m-2", 1.0, 2.0, 3.0)], NAMES)
    store.register([Machine("m-1", "press")])

    async def ask():
        reader = AsyncOnlineStore.from_settings(RedisSettings(url=url))
        await reader.ping()
        answers = (
            await reader.features("m-2"),
            await reader.features("nobody"),
            await reader.features_of(["m-1", "nobody", "m-2"]),
            await reader.machine("m-1"),
            await reader.machine("nobody"),
            await reader.machine_ids(),
        )
        await reader.aclose()
        return answers

    one, none, many, machine, stranger, ids = asyncio.run(ask())
    assert one.vector.tolist() == [1.0, 2.0, 3.0]
    assert none is None
    assert stranger is None
    assert list(many) == ["m-1", "m-2"]
    assert machine == store.machine("m-1")
    assert ids == ["m-1"]
