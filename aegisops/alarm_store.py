"""The alarm side of the Redis edge: states with compare-and-set, the active engine's lock.

One script writes a state, its journal record and its announcement together, or nothing: if the
version is not the expected one, if another engine has become active, or if Redis was emptied. A
journal record stays in `pending` until it is in an outbox on disk, so a process that dies between
the two leaves it for the engine to find.

An emptied Redis has no epoch. Then there is no list rather than an empty one, until the engine has
restored the states from the journal.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from aegisops import names
from aegisops.alarms import journal, lifecycle
from aegisops.alarms.lifecycle import Alarm
from aegisops.errors import Conflict, ServiceUnavailable
from aegisops.names import AlarmState, Transition
from aegisops.online_store import Client, connect, connect_async, translated
from aegisops.settings import RedisSettings

KEPT_RAISES = 10_000
KEPT_RAISES_MS = 86_400_000
SIGNAL_SECONDS = 60
_BATCH = 1_000


class AlarmsAway(ServiceUnavailable):
    """The states are not there: no engine has restored them since Redis was emptied."""


class NotActive(Conflict):
    """Another engine is active; this one must not write."""


@dataclass(frozen=True, slots=True)
class Change:
    """A new snapshot, the version it is based on, and how it is announced."""

    alarm: Alarm
    expected: int
    """0 = the alarm had no state yet."""
    announcement: Mapping[str, Any]
    """JSON row for who listens."""


@dataclass(frozen=True, slots=True)
class Signal:
    """What a part of the product says of itself."""

    name: str
    source: str
    is_on: bool
    detail: str
    at: float
    """Unix seconds."""


class SignalBoard:
    """The word of a part that has no event loop; see `AlarmStore.tell`."""

    def __init__(self, client: Client) -> None:
        """`client`: a blocking one."""
        self._redis = client

    @classmethod
    def from_settings(cls, settings: RedisSettings) -> SignalBoard:
        """Board at the configured address; nothing is sent yet."""
        return cls(connect(settings))

    def tell(self, signal: Signal) -> None:
        """One part's word; it counts for SIGNAL_SECONDS."""
        with translated():
            self._redis.hset(names.ALARM_SIGNALS_KEY, *_signal(signal))


class AlarmStore:
    """States, journal records on their way, the engine's lock. For an event loop."""

    def __init__(self, client: Client) -> None:
        self._redis = client
        self._commit = client.register_script(_COMMIT)
        self._renew = client.register_script(_RENEW)
        self._release = client.register_script(_RELEASE)

    @classmethod
    def from_settings(cls, settings: RedisSettings) -> AlarmStore:
        """Store at the configured address; nothing is sent yet."""
        return cls(connect_async(settings))

    # --- states -----------------------------------------------------------------------------------

    async def get(self, alarm_id: str) -> Alarm | None:
        """One alarm's state. Raises `AlarmsAway`."""
        return (await self.get_all([alarm_id])).get(alarm_id)

    async def get_all(self, alarm_ids: Sequence[str]) -> dict[str, Alarm]:
        """States of those that have one. Raises `AlarmsAway`."""
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            pipe.exists(names.ALARMS_EPOCH_KEY)
            if alarm_ids:
                pipe.hmget(names.ALARM_STATES_KEY, alarm_ids)
            there, *found = await pipe.execute()
        _require(there)
        return _decode(found[0] if found else [])

    async def standing(self) -> dict[str, Alarm]:
        """Every alarm that is not normal. Raises `AlarmsAway`."""
        with translated():
            pipe = self._redis.pipeline(transaction=True)
            pipe.exists(names.ALARMS_EPOCH_KEY)
            pipe.smembers(names.ALARMS_STANDING_KEY)
            there, ids = await pipe.execute()
        _require(there)
        return await self.get_all([each.decode() for each in ids])

    async def everything(self) -> dict[str, Alarm]:
        """Every alarm that was ever raised. Raises `AlarmsAway`."""
        with translated():
            pipe = self._redis.pipeline(transaction=True)
            pipe.exists(names.ALARMS_EPOCH_KEY)
            pipe.hvals(names.ALARM_STATES_KEY)
            there, found = await pipe.execute()
        _require(there)
        return _decode(found)

    async def raises(self, since_ms: int) -> list[tuple[int, str]]:
        """(ms, alarm id) of the raises that were shown, from `since_ms` on, ascending."""
        with translated():
            rows = await self._redis.zrangebyscore(
                names.ALARM_RAISES_KEY, since_ms, "+inf", withscores=True
            )
        return [(int(score), member.decode().partition("-")[0]) for member, score in rows]

    async def commit(self, changes: Sequence[Change], token: str = "") -> list[bool]:
        """Write each change whose alarm has the expected version; says which were written.

        `token`: the caller's proof that it is the active engine; people's changes have none.
        Raises `NotActive` and `AlarmsAway`; then nothing was written.
        """
        written: list[bool] = []
        for begin in range(0, len(changes), _BATCH):
            written += await self._commit_some(changes[begin : begin + _BATCH], token)
        return written

    async def _commit_some(self, changes: Sequence[Change], token: str) -> list[bool]:
        arguments: list[Any] = [token, names.ALARMS_CHANNEL]
        for change in changes:
            alarm, last = change.alarm, change.alarm.last
            assert last is not None  # noqa: S101 - only a transition is written
            is_shown_raise = (
                last.transition is Transition.RAISED
                and alarm.state is AlarmState.UNACKNOWLEDGED
                and alarm.kind is names.AlarmKind.ALARM
            )
            stands = "0" if alarm.state is AlarmState.NORMAL else "1"
            if last.transition is Transition.REMOVED:
                stands = "-"
            arguments += [
                alarm.alarm_id,
                change.expected,
                lifecycle_bytes(alarm),
                stands,
                journal.journal_id(alarm),
                orjson.dumps(journal.record(alarm)),
                last.at // 1_000 if is_shown_raise else 0,
                orjson.dumps(change.announcement),
                last.at,
            ]
        with translated():
            answer = await self._commit(keys=_COMMIT_KEYS, args=arguments)
        if answer == b"EMPTY":
            _require(there=0)
        if answer == b"FENCED":
            raise NotActive("another alarm engine is active")
        return [bool(each) for each in answer]

    async def restore(self, alarms: Iterable[Alarm], token: str) -> None:
        """Put all states in, then the epoch. Raises `NotActive`."""
        listed = list(alarms)
        with translated():
            if not await self.renew(token, _RESTORE_MS):
                raise NotActive("another alarm engine is active")
            for begin in range(0, len(listed), _BATCH):
                pipe = self._redis.pipeline(transaction=True)
                for alarm in listed[begin : begin + _BATCH]:
                    pipe.hset(names.ALARM_STATES_KEY, alarm.alarm_id, lifecycle_bytes(alarm))
                    if alarm.state is not AlarmState.NORMAL:
                        pipe.sadd(names.ALARMS_STANDING_KEY, alarm.alarm_id)
                await pipe.execute()
            await self._redis.set(names.ALARMS_EPOCH_KEY, uuid.uuid4().hex[:8], nx=True)

    async def is_there(self) -> bool:
        """Whether the states are complete."""
        with translated():
            return bool(await self._redis.exists(names.ALARMS_EPOCH_KEY))

    # --- journal records on their way -------------------------------------------------------------

    async def journaled(self, journal_ids: Sequence[str]) -> None:
        """These records are in an outbox on disk."""
        if journal_ids:
            with translated():
                await self._redis.hdel(names.ALARMS_PENDING_KEY, *journal_ids)

    async def pending(self, before: int) -> list[dict[str, Any]]:
        """Journal records from before a time (µs) that no outbox has told about."""
        with translated():
            found = await self._redis.hvals(names.ALARMS_PENDING_KEY)
        records = [orjson.loads(each) for each in found]
        return [each for each in records if each["changed_at"] < before]

    # --- the active engine ------------------------------------------------------------------------

    async def lead(self, instance: str, ttl_ms: int) -> str | None:
        """Become the active engine for `ttl_ms`: its token, or None while another is."""
        with translated():
            if await self._redis.exists(names.ALARM_ENGINE_KEY):
                return None
            token = f"{instance}/{await self._redis.incr(names.ALARM_FENCE_KEY)}"
            is_mine = await self._redis.set(names.ALARM_ENGINE_KEY, token, nx=True, px=ttl_ms)
        return token if is_mine else None

    async def renew(self, token: str, ttl_ms: int) -> bool:
        """Stay the active engine for `ttl_ms` more; False when the token is no longer the one."""
        with translated():
            return bool(await self._renew(keys=[names.ALARM_ENGINE_KEY], args=[token, ttl_ms]))

    async def release(self, token: str) -> None:
        """Let another engine become active at once."""
        with translated():
            await self._release(keys=[names.ALARM_ENGINE_KEY], args=[token])

    async def active_engine(self) -> str | None:
        """Token of the active engine, if there is one."""
        with translated():
            found = await self._redis.get(names.ALARM_ENGINE_KEY)
        return found.decode() if found else None

    # --- what parts say of themselves, what the pager was told ------------------------------------

    async def tell(self, signal: Signal) -> None:
        """One part's word; it counts for SIGNAL_SECONDS."""
        with translated():
            await self._redis.hset(names.ALARM_SIGNALS_KEY, *_signal(signal))

    async def signals(self, now: float) -> list[Signal]:
        """What parts said within the last SIGNAL_SECONDS; older words are dropped."""
        with translated():
            found = await self._redis.hgetall(names.ALARM_SIGNALS_KEY)
            said = []
            for key, content in found.items():
                name, _, source = key.decode().partition(" ")
                said.append(Signal(name, source, **orjson.loads(content)))
            old = [s for s in said if s.at < now - SIGNAL_SECONDS]
            if old:
                await self._redis.hdel(
                    names.ALARM_SIGNALS_KEY, *(f"{s.name} {s.source}" for s in old)
                )
        return [s for s in said if s.at >= now - SIGNAL_SECONDS]

    async def notices(self) -> dict[str, str]:
        """Alarm id → what the pager was last told of it."""
        with translated():
            found = await self._redis.hgetall(names.ALARM_NOTICES_KEY)
        return {key.decode(): value.decode() for key, value in found.items()}

    async def noticed(self, alarm_id: str, told: str | None) -> None:
        """Remember what the pager was told; None forgets."""
        with translated():
            if told is None:
                await self._redis.hdel(names.ALARM_NOTICES_KEY, alarm_id)
            else:
                await self._redis.hset(names.ALARM_NOTICES_KEY, alarm_id, told)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


_RESTORE_MS = 30_000


def _signal(signal: Signal) -> tuple[str, bytes]:
    content = {"is_on": signal.is_on, "detail": signal.detail, "at": signal.at}
    return f"{signal.name} {signal.source}", orjson.dumps(content)


def lifecycle_bytes(alarm: Alarm) -> bytes:
    """As stored: the version, a blank, the snapshot."""
    return b"%d %s" % (alarm.version, lifecycle.dump(alarm))


def _decode(found: Iterable[bytes | None]) -> dict[str, Alarm]:
    alarms = (lifecycle.load(blob.partition(b" ")[2]) for blob in found if blob is not None)
    return {alarm.alarm_id: alarm for alarm in alarms}


def _require(there: int) -> None:
    if not there:
        raise AlarmsAway(
            "the alarm states are not there: Redis was emptied and no alarm engine has restored "
            "them yet; start `python -m serving.alarm_engine`"
        )


_COMMIT_KEYS = [
    names.ALARM_STATES_KEY,
    names.ALARMS_STANDING_KEY,
    names.ALARM_RAISES_KEY,
    names.ALARMS_PENDING_KEY,
    names.ALARM_ENGINE_KEY,
    names.ALARMS_EPOCH_KEY,
]

_COMMIT = f"""
if redis.call('EXISTS', KEYS[6]) == 0 then return 'EMPTY' end
if ARGV[1] ~= '' and redis.call('GET', KEYS[5]) ~= ARGV[1] then return 'FENCED' end
local written, rows, at = {{}}, {{}}, 0
for i = 3, #ARGV, 9 do
  local stored = redis.call('HGET', KEYS[1], ARGV[i])
  local version = stored and string.match(stored, '^%d+') or '0'
  if version == ARGV[i + 1] then
    if ARGV[i + 3] == '-' then
      redis.call('HDEL', KEYS[1], ARGV[i])
    else
      redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
    end
    if ARGV[i + 3] == '1' then
      redis.call('SADD', KEYS[2], ARGV[i])
    else
      redis.call('SREM', KEYS[2], ARGV[i])
    end
    if ARGV[i + 6] ~= '0' then
      redis.call('ZADD', KEYS[3], ARGV[i + 6], ARGV[i + 4])
      redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', ARGV[i + 6] - {KEPT_RAISES_MS})
      redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -{KEPT_RAISES + 1})
    end
    redis.call('HSET', KEYS[4], ARGV[i + 4], ARGV[i + 5])
    written[#written + 1] = 1
    rows[#rows + 1] = ARGV[i + 7]
    at = ARGV[i + 8]
  else
    written[#written + 1] = 0
  end
end
if #rows > 0 then
  redis.call('PUBLISH', ARGV[2],
    '{{"at":' .. at .. ',"machines":[' .. table.concat(rows, ',') .. ']}}')
end
return written
"""

_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""
