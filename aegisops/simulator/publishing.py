"""Paces a live fleet by the clock and hands its records to a publisher. No Kafka here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from aegisops.errors import AegisError, ConfigurationError
from aegisops.simulator.live_fleet import DEFECT_HOURS, LiveFleet, stamped

STEPS_PER_TURN = 20
"""Steps of a machine between two flushes while catching up: the in-memory broker holds 5 MiB a
partition, so the readers must be able to keep up."""


class Publisher(Protocol):
    """What the loop needs of Kafka; `aegisops.bus` has the real one."""

    def publish(self, topic: str, key: str, record: Mapping[str, Any]) -> None:
        """Queue one record."""

    def flush(self) -> None:
        """Return when everything queued is acknowledged."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Simulated time: from `begin` on, `speed` times as fast as the clock, never ahead of it.

    Times in µs; `started` is the clock's time at the start. speed 0 = catch up at once.
    """

    begin: int
    started: int
    speed: float

    def at(self, now: int) -> int:
        """Simulated time at clock time `now`."""
        if not self.speed:
            return now
        return min(now, self.begin + round((now - self.started) * self.speed))


@dataclass(frozen=True, slots=True)
class Defect:
    """A person's request to break a machine."""

    machine_id: str
    mode: str
    hours: float = DEFECT_HOURS
    speed: float = 1.0
    """How many times faster the machine lives until it is repaired."""

    @classmethod
    def parse(cls, text: str) -> Defect:
        """From MACHINE:MODE or MACHINE:MODE:HOURS."""
        machine_id, _, rest = text.partition(":")
        mode, _, hours = rest.partition(":")
        try:
            return cls(machine_id, mode, float(hours) if hours else DEFECT_HOURS)
        except ValueError as error:
            raise ConfigurationError(
                f"{text!r}: write MACHINE:MODE or MACHINE:MODE:HOURS, spindle-003:bearing_wear:6"
            ) from error


class DefectFile:
    """Requests appended to a file as JSON lines, by `request`, for a running simulator."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = path.stat().st_size if path.exists() else 0  # older requests had their day

    def new(self) -> list[Defect]:
        """Whole lines added since the last call; a line that is no request raises."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole, _, _ = file.read().rpartition(b"\n")
        if not whole:
            return []
        self._read += len(whole) + 1
        try:
            return [Defect(**orjson.loads(line)) for line in whole.splitlines() if line.strip()]
        except (orjson.JSONDecodeError, TypeError) as error:
            raise ConfigurationError(f"{self._path}: not a request: {error}") from error


def defect_path(data_dir: Path) -> Path:
    """Where a running simulator looks for requests."""
    return data_dir / "simulator" / "defects.jsonl"


def request(data_dir: Path, defect: Defect) -> None:
    """Ask the running simulator of this data folder to start a defect."""
    path = defect_path(data_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(orjson.dumps(asdict(defect)) + b"\n")


def run(
    fleet: LiveFleet,
    publisher: Publisher,
    pace: Pace,
    *,
    clock: Callable[[], int],
    wait: Callable[[], bool],
    defects: Callable[[], Iterable[Defect]] = tuple,
    complain: Callable[[str], None] = lambda _: None,
) -> int:
    """Publish what is due, again and again, until `wait` returns True; returns the messages sent.

    Args:
        fleet: the machines.
        publisher: takes the records, in time order per machine.
        pace: maps the clock to simulated time.
        clock: µs since 1970.
        wait: sleeps until the next round; True = stop now.
        defects: requests since the last round; a wrong one is told to `complain`, not raised.
        complain: where to tell it.
    """
    sent = 0
    while True:
        _break(fleet, defects, complain)
        now = clock()
        messages = fleet.due(pace.at(now), limit=STEPS_PER_TURN)
        for message in messages:
            topic, record = message.topic, stamped(message, clock()).record
            publisher.publish(topic, message.machine_id, record)
        if messages:
            publisher.flush()
            sent += len(messages)
        if wait():
            return sent


def _break(
    fleet: LiveFleet, defects: Callable[[], Iterable[Defect]], complain: Callable[[str], None]
) -> None:
    try:
        wanted = list(defects())
    except AegisError as error:
        complain(str(error))
        return
    for defect in wanted:
        try:
            fleet.inject(defect.machine_id, defect.mode, defect.hours, defect.speed)
        except AegisError as error:
            complain(str(error))
