from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest
import redis

from aegisops import names
from aegisops.embedded import ports
from aegisops.errors import ServiceUnavailable
from aegisops.online_store import (
    AsyncOnlineStore,
    FeatureVector,
    Machine,
    OnlineStore,
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
