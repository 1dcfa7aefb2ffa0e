"""What the feature worker keeps in Redis, beside the features everybody reads: its own memory.

The writes of one Kafka partition are one script: tile states, feature hashes, raw buffers and the
position they rest on appear together or not at all, so a replayed offset is never applied twice.
The script compares the stored positions first, which keeps out a worker that lost the partition.
One script instead of a transaction of single commands: the client library takes 60 µs for each
command of a transaction, the script 1 µs a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from aegisops import names
from aegisops.errors import Conflict
from aegisops.online_store import (
    RAW_ENTRIES,
    RAW_TTL_SECONDS,
    Client,
    FeatureVector,
    OnlineStore,
    encode_features,
    translated,
)

_STATE_BATCH = 256
_MOST_WORDS = 900_000
"""A command has at most 2^20 words before Redis 7."""

# KEYS: positions. ARGV: what each must be ('' = nothing), then commands, each behind the number of
# its words. Returns the positions that are something else, and has then written nothing.
_SCRIPT = """
local wrong = {}
for i = 1, #KEYS do
  local stored = redis.call('GET', KEYS[i]) or ''
  if stored ~= ARGV[i] then
    wrong[#wrong + 1] = KEYS[i]
    wrong[#wrong + 1] = stored
  end
end
if #wrong > 0 then return wrong end
local at = #KEYS + 1
while at <= #ARGV do
  local count = tonumber(ARGV[at])
  redis.call(unpack(ARGV, at + 1, at + count))
  at = at + count + 1
end
return wrong
"""

TopicPartition = tuple[str, int]
Word = str | bytes | int


@dataclass(frozen=True, slots=True)
class Position:
    """Last offset of a partition inside the stored tiles, and of which topic incarnation."""

    incarnation: str
    offset: int

    def __str__(self) -> str:
        return f"{self.incarnation} {self.offset}"


@dataclass(frozen=True, slots=True)
class PartitionUpdate:
    """What one flush changes for the machines of one Kafka partition; written as one script."""

    positions: Mapping[TopicPartition, Position]
    expected: Mapping[TopicPartition, Position | None]
    """Positions the update was computed on; another value in Redis refuses the write."""
    states: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    """Machine → changed parts of its live state."""
    features: Sequence[FeatureVector] = ()
    feature_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Feature set → names of the vector, for the readable fields."""
    raw: Mapping[str, bytes] = field(default_factory=dict)
    """Machine → its readings of this flush, for the capped raw stream."""
    forget: Sequence[str] = ()
    """Machines whose stored state is replaced as a whole."""


class WorkerStore(OnlineStore):
    """The online store with the feature worker's memory."""

    def __init__(self, client: Client, feature_ttl_seconds: int = 7_200) -> None:
        super().__init__(client, feature_ttl_seconds)
        self._script = client.register_script(_SCRIPT)

    def positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Position]:
        """Stored positions of those partitions that have one."""
        if not partitions:
            return {}
        with translated():
            found = self._redis.mget([names.position_key(*p) for p in partitions])
        positions = {}
        for partition, blob in zip(partitions, found, strict=True):
            if blob is not None:
                incarnation, _, offset = blob.decode().rpartition(" ")
                positions[partition] = Position(incarnation, int(offset))
        return positions

    def drop_positions(self, partitions: Sequence[TopicPartition]) -> None:
        """Make the partitions' next owner rebuild them."""
        with translated():
            self._redis.delete(*(names.position_key(*p) for p in partitions))

    def states(self, machine_ids: Sequence[str]) -> dict[str, dict[str, bytes]]:
        """Stored live state of each machine; an empty mapping where there is none."""
        states: dict[str, dict[str, bytes]] = {}
        with translated():
            for begin in range(0, len(machine_ids), _STATE_BATCH):
                ids = machine_ids[begin : begin + _STATE_BATCH]
                pipe = self._redis.pipeline(transaction=False)
                for machine_id in ids:
                    pipe.hgetall(names.tiles_key(machine_id))
                for machine_id, parts in zip(ids, pipe.execute(), strict=True):
                    states[machine_id] = {name.decode(): blob for name, blob in parts.items()}
        return states

    def write(self, update: PartitionUpdate) -> None:
        """Apply one partition's update: all of it, or nothing.

        Raises `Conflict` when a position is not the expected one: another worker owns the
        partition now, or Redis was emptied. Nothing is written then.
        """
        keys = [names.position_key(*p) for p in update.expected]
        wanted = ["" if p is None else str(p) for p in update.expected.values()]
        *earlier, last = _bites(self._commands(update))
        if earlier:
            # Too much for one script. Without a position the state counts for nothing and would be
            # rebuilt, so it goes first and comes back with the last bite.
            self._run(keys, wanted, [("DEL", *keys)])
            wanted = [""] * len(keys)
        for commands in earlier:
            self._run(keys, wanted, commands)
        self._run(keys, wanted, [*last, *_positions(update)])

    def publish(self, message: bytes) -> None:
        """One live-telemetry message; nobody listening is no error."""
        with translated():
            self._redis.publish(names.TELEMETRY_CHANNEL, message)

    def _run(
        self, keys: Sequence[str], wanted: Sequence[str], commands: Sequence[tuple[Word, ...]]
    ) -> None:
        words = chain.from_iterable((len(command), *command) for command in commands)
        with translated():
            wrong = self._script(keys=keys, args=[*wanted, *words])
        if wrong:
            stored = {k.decode(): v.decode() for k, v in zip(wrong[::2], wrong[1::2], strict=True)}
            raise Conflict(
                f"stored positions are {stored}, not {dict(zip(keys, wanted, strict=True))}: "
                "another worker owns the partition or Redis was emptied; restart from the store"
            )

    def _commands(self, update: PartitionUpdate) -> list[tuple[Word, ...]]:
        commands: list[tuple[Word, ...]] = [("DEL", names.tiles_key(m)) for m in update.forget]
        for machine_id, parts in update.states.items():
            if parts:
                commands.append(("HSET", names.tiles_key(machine_id), *_words(parts)))
        for vector in update.features:
            key = names.features_key(vector.machine_id)
            columns = update.feature_names.get(vector.feature_set, ())
            commands.append(("HSET", key, *_words(encode_features(vector, columns))))
            commands.append(("EXPIRE", key, self._ttl))
        for machine_id, batch in update.raw.items():
            key = names.raw_key(machine_id)
            commands.append(("XADD", key, "MAXLEN", "~", RAW_ENTRIES, "*", "b", batch))
            commands.append(("EXPIRE", key, RAW_TTL_SECONDS))
        return commands


def _words(fields: Mapping[str, str | bytes]) -> Iterator[Word]:
    for name, value in fields.items():
        yield name
        yield value


def _positions(update: PartitionUpdate) -> list[tuple[Word, ...]]:
    return [("SET", names.position_key(*p), str(at)) for p, at in update.positions.items()]


def _bites(commands: Sequence[tuple[Word, ...]]) -> list[list[tuple[Word, ...]]]:
    """The commands in order, in lists that one script can take; at least one list."""
    bites: list[list[tuple[Word, ...]]] = [[]]
    words = 0
    for command in commands:
        words += len(command) + 1
        if words > _MOST_WORDS:
            bites.append([])
            words = len(command) + 1
        bites[-1].append(command)
    return bites
