"""The Redis edge: machine registrations, current feature vectors, raw buffers.

Nothing newer than Redis 6.2 is used. An absent key is "unknown or stale" and comes back as None,
never as zeros. Every client error becomes `ServiceUnavailable`. What only the feature worker keeps
is in `worker_store`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import orjson
import redis
import redis.asyncio
from redis.exceptions import RedisError

from aegisops import names
from aegisops.errors import ServiceUnavailable
from aegisops.settings import RedisSettings

TIMEOUT_SECONDS = 5.0
RAW_ENTRIES = 600
RAW_TTL_SECONDS = 7_200
_OPTIONS: dict[str, Any] = {
    "protocol": 2,  # redis-py 8 would speak RESP3; RESP2 is understood by every server and proxy
    "socket_timeout": TIMEOUT_SECONDS,
    "socket_connect_timeout": TIMEOUT_SECONDS,
}

Client = Any
"""A redis-py client; its hints join the sync and async answers of a command, which helps no one."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A registered machine. `attributes` are its fixed properties, such as age."""

    machine_id: str
    machine_class: str
    site: str = ""
    area: str = ""
    attributes: Mapping[str, str | float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FeatureVector:
    """Latest vector of a machine, in the order of its feature set; NaN = missing."""

    machine_id: str
    feature_set: str
    ts: int
    """Event time of the newest value inside, µs on the machine's clock."""
    vector: npt.NDArray[np.float64]
    coverage: float
    """Lowest share (0 to 1) of expected values behind any windowed feature."""


def connect(settings: RedisSettings) -> Client:
    """A `redis.Redis`; nothing is sent yet."""
    return redis.Redis.from_url(settings.url, **_OPTIONS)


def connect_async(settings: RedisSettings) -> Client:
    """A `redis.asyncio.Redis` for the prediction API; nothing is sent yet."""
    return redis.asyncio.Redis.from_url(settings.url, **_OPTIONS)


class OnlineStore:
    """Everything the applications keep in Redis."""

    def __init__(self, client: Client, feature_ttl_seconds: int = 7_200) -> None:
        self._redis = client
        self._ttl = feature_ttl_seconds

    @classmethod
    def from_settings(cls, settings: RedisSettings) -> Self:
        """Store at the configured address; nothing is sent yet."""
        return cls(connect(settings), settings.feature_ttl_seconds)

    def ping(self) -> None:
        """Raises `ServiceUnavailable` when Redis does not answer."""
        with translated():
            self._redis.ping()

    # --- machines ---------------------------------------------------------------------------------

    def register(self, machines: Iterable[Machine]) -> None:
        """Write registrations, replacing earlier ones of the same ids."""
        with translated():
            pipe = self._redis.pipeline(transaction=True)
            for machine in machines:
                pipe.set(names.machine_key(machine.machine_id), _encode_machine(machine))
                pipe.sadd(names.MACHINES_KEY, machine.machine_id)
            pipe.execute()

    def machine_ids(self) -> list[str]:
        """Ids of all registered machines, sorted."""
        with translated():
            members = self._redis.smembers(names.MACHINES_KEY)
            return sorted(m.decode() for m in members)

    def machine(self, machine_id: str) -> Machine | None:
        """Registration of one machine, or None."""
        return self.machines([machine_id]).get(machine_id)

    def machines(self, machine_ids: Sequence[str]) -> dict[str, Machine]:
        """Registrations of those that have one."""
        if not machine_ids:
            return {}
        with translated():
            found = self._redis.mget([names.machine_key(m) for m in machine_ids])
        return {
            m: _decode_machine(m, blob) for m, blob in zip(machine_ids, found, strict=True) if blob
        }

    # --- features ---------------------------------------------------------------------------------

    def features(self, machine_id: str) -> FeatureVector | None:
        """Current vector, or None when there is none or it expired."""
        with translated():
            reply = self._redis.hmget(names.features_key(machine_id), _FEATURE_FIELDS)
        return _decode_features(machine_id, reply)

    def features_of(self, machine_ids: Sequence[str]) -> dict[str, FeatureVector]:
        """Current vectors of those that have one, read in one round trip."""
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for machine_id in machine_ids:
                pipe.hmget(names.features_key(machine_id), _FEATURE_FIELDS)
            replies = pipe.execute()
        return _decode_all(machine_ids, replies)

    def write_features(
        self, features: Iterable[FeatureVector], feature_names: Mapping[str, Sequence[str]]
    ) -> None:
        """Write vectors outside a stream, for example those just computed on demand."""
        with translated():
            pipe = self._redis.pipeline(transaction=True)
            for vector in features:
                self._put_features(pipe, vector, feature_names.get(vector.feature_set, ()))
            pipe.execute()

    def raw(self, machine_id: str, count: int = RAW_ENTRIES) -> list[tuple[str, bytes]]:
        """The newest raw batches of a machine, oldest first, with their stream ids."""
        with translated():
            entries = self._redis.xrevrange(names.raw_key(machine_id), count=count)
        return [(entry.decode(), fields[b"b"]) for entry, fields in reversed(entries)]

    def _put_features(self, pipe: Client, vector: FeatureVector, columns: Sequence[str]) -> None:
        key = names.features_key(vector.machine_id)
        pipe.hset(key, mapping=encode_features(vector, columns))
        pipe.expire(key, self._ttl)


class AsyncOnlineStore:
    """The prediction API's reads, for an event loop; same answers as `OnlineStore`."""

    def __init__(self, client: Client) -> None:
        self._redis = client

    @classmethod
    def from_settings(cls, settings: RedisSettings) -> AsyncOnlineStore:
        """Store at the configured address; nothing is sent yet."""
        return cls(connect_async(settings))

    async def ping(self) -> None:
        """Raises `ServiceUnavailable` when Redis does not answer."""
        with translated():
            await self._redis.ping()

    async def machine(self, machine_id: str) -> Machine | None:
        """Registration of one machine, or None."""
        with translated():
            blob = await self._redis.get(names.machine_key(machine_id))
        return _decode_machine(machine_id, blob) if blob else None

    async def machines(self, machine_ids: Sequence[str]) -> dict[str, Machine]:
        """Registrations of those that have one."""
        if not machine_ids:
            return {}
        with translated():
            found = await self._redis.mget([names.machine_key(m) for m in machine_ids])
        return {
            m: _decode_machine(m, blob) for m, blob in zip(machine_ids, found, strict=True) if blob
        }

    async def machine_ids(self) -> list[str]:
        """Ids of all registered machines, sorted."""
        with translated():
            members = await self._redis.smembers(names.MACHINES_KEY)
        return sorted(m.decode() for m in members)

    async def features(self, machine_id: str) -> FeatureVector | None:
        """Current vector, or None when there is none or it expired."""
        return (await self.features_of([machine_id])).get(machine_id)

    async def features_of(self, machine_ids: Sequence[str]) -> dict[str, FeatureVector]:
        """Current vectors of those that have one, read in one round trip.

        On a connection itself: the client's pipeline costs three times the processor time.
        """
        commands = [("HMGET", names.features_key(m), *_FEATURE_FIELDS) for m in machine_ids]
        pool = self._redis.connection_pool
        with translated():
            connection = await pool.get_connection()
            try:
                await connection.send_packed_command(connection.pack_commands(commands))
                replies = [await connection.read_response() for _ in commands]
            except BaseException:
                await connection.disconnect()  # replies may be under way that nobody waits for
                raise
            finally:
                await pool.release(connection)
        return _decode_all(machine_ids, replies)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


# --- encodings ------------------------------------------------------------------------------------

_FEATURE_FIELDS = ["v", "fv", "ts", "coverage"]


def _encode_machine(machine: Machine) -> bytes:
    return orjson.dumps(
        {
            "machine_class": machine.machine_class,
            "site": machine.site,
            "area": machine.area,
            "attributes": dict(machine.attributes),
        }
    )


def _decode_machine(machine_id: str, blob: bytes) -> Machine:
    return Machine(machine_id=machine_id, **orjson.loads(blob))


def encode_features(vector: FeatureVector, columns: Sequence[str]) -> dict[str, bytes | str]:
    """Fields of a vector's hash; `columns` name its readable values."""
    readable = {c: repr(float(x)) for c, x in zip(columns, vector.vector, strict=False)}
    return {
        **readable,  # first, so that no feature's name can hide the fields below
        "v": np.ascontiguousarray(vector.vector, dtype="<f8").tobytes(),
        "fv": vector.feature_set,
        "ts": str(vector.ts),
        "coverage": repr(vector.coverage),
    }


def _decode_features(machine_id: str, reply: Sequence[bytes | None]) -> FeatureVector | None:
    packed, feature_set, ts, coverage = reply
    if packed is None or feature_set is None or ts is None or coverage is None:
        return None
    return FeatureVector(
        machine_id=machine_id,
        feature_set=feature_set.decode(),
        ts=int(ts),
        vector=np.frombuffer(packed, dtype="<f8"),
        coverage=float(coverage),
    )


def _decode_all(
    machine_ids: Sequence[str], replies: Sequence[Sequence[bytes | None]]
) -> dict[str, FeatureVector]:
    decoded = (_decode_features(m, reply) for m, reply in zip(machine_ids, replies, strict=True))
    return {vector.machine_id: vector for vector in decoded if vector is not None}


@contextmanager
def translated() -> Iterator[None]:
    """Client errors inside become `ServiceUnavailable`."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise ServiceUnavailable(
            f"Redis does not answer: {error}; check AEGIS_REDIS__URL"
        ) from error
