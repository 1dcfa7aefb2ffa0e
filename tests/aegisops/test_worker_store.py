from __future__ import annotations

import math

import numpy as np
import pytest
import redis

from aegisops import names, worker_store
from aegisops.errors import Conflict, ServiceUnavailable
from aegisops.online_store import FeatureVector
from aegisops.worker_store import PartitionUpdate, Position, WorkerStore

NAMES = {"press@2": ("force_mean_1h", "v", "ts")}


def vector(machine_id="m-1", *values, ts=7):
    return FeatureVector(machine_id, "press@2", ts, np.array(values or (1.5, math.nan, 0.1)), 0.75)


@pytest.fixture
def client(redis_server):
    client = redis.Redis.from_url(redis_server.url.removesuffix("/0") + "/7", protocol=2)
    client.flushdb()
    yield client
    client.close()


@pytest.fixture
def store(client):
    return WorkerStore(client, feature_ttl_seconds=100)


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
    class Overtaken(WorkerStore):
        def _commands(self, update):
            client.set(names.position_key("t", 0), "c 6")
            return super()._commands(update)

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


def test_an_update_too_large_for_one_script_is_whole_or_will_be_rebuilt(store, client, monkeypatch):
    monkeypatch.setattr(worker_store, "_MOST_WORDS", 20)
    place, states = ("t", 0), {f"m-{i}": {"a": b"1", "b": b"2"} for i in range(9)}
    store.write(PartitionUpdate({place: Position("c", 4)}, {place: None}, states))
    assert store.positions([place]) == {place: Position("c", 4)}
    assert store.states(list(states)) == states

    # Killed after the first bites: without a position the next owner rebuilds the partition.
    runs = []
    whole = WorkerStore._run

    def dying(self, *arguments):
        if len(runs) == 3:
            raise KeyboardInterrupt
        runs.append(arguments)
        whole(self, *arguments)

    monkeypatch.setattr(WorkerStore, "_run", dying)
    update = PartitionUpdate({place: Position("c", 5)}, {place: Position("c", 4)}, states)
    with pytest.raises(KeyboardInterrupt):
        store.write(update)
    assert store.positions([place]) == {}


def test_a_command_redis_refuses_is_named_and_the_position_stays(store, client):
    client.set(names.tiles_key("m-1"), "not a hash")
    place = ("t", 0)
    with pytest.raises(ServiceUnavailable, match="WRONGTYPE"):
        store.write(PartitionUpdate({place: Position("c", 1)}, {place: None}, {"m-1": {"a": b"1"}}))
    assert store.positions([place]) == {}
