"""Where a vector comes from: the online store, else the lake within a time budget, else nowhere.

Nothing is ever filled in: a machine without fresh features gets `Unusable` with the reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Literal, Protocol

from aegisops.errors import AegisError, ServiceUnavailable, UnknownMachine
from aegisops.machines import Clock, MachineClass
from aegisops.machines.model import US_PER_SECOND
from aegisops.online_store import FeatureVector, Machine
from serving.limits import stepping_aside
from serving.vectors import Cause, Unusable, Vector

log = logging.getLogger(__name__)

At = int | Literal["now", "latest"]
"""As of when: `now` (stale features are refused), `latest` (the machine's newest, however old), or
a time in µs on the machine's clock (always from the lake)."""

REMEMBER_SECONDS = 60.0
"""How long a registration is used without asking again."""
REMEMBER_LAKE_SECONDS = 5.0
"""How long an answer of the lake is used again: a silent machine must not scan it per request."""
REMEMBERED = 100_000
"""Answers of the lake kept at most."""
PER_MACHINE_SECONDS = 0.01
"""Added to the time budget for each further machine of a batch."""
COLD_SECONDS = 10.0
"""Added for the first answer from the lake, which imports its libraries."""
PENDING = 32
"""On-demand computations that may wait; more are refused at once."""


class Store(Protocol):
    """What is read from the online store; see aegisops.online_store.AsyncOnlineStore."""

    async def machines(self, machine_ids: Sequence[str]) -> dict[str, Machine]:
        """Registrations of those that have one."""

    async def machine_ids(self) -> list[str]:
        """Ids of all registered machines."""

    async def features_of(self, machine_ids: Sequence[str]) -> dict[str, FeatureVector]:
        """Current vectors of those that have one."""


class Lake(Protocol):
    """What is read from the lake, blocking; see serving.lake_features."""

    def machines(self) -> dict[str, Machine]:
        """The registered fleet."""

    def vectors(
        self, machines: Sequence[Machine], machine_class: MachineClass, at: int | None = None
    ) -> dict[str, Vector]:
        """Vectors at the last step up to `at` of machines of one class that have readings."""


class FeatureReader:
    """Registrations and vectors for the prediction service. Runs on one event loop."""

    def __init__(
        self,
        store: Store,
        lake: Lake,
        classes: Mapping[str, MachineClass],
        *,
        clock: Callable[[], float],
        executor: Executor,
        budget_seconds: float = 2.0,
    ) -> None:
        """`clock`: Unix seconds. `executor` runs the lake's blocking reads."""
        self._store = store
        self._lake = lake
        self._classes = classes
        self._clock = clock
        self._executor = executor
        self._budget = budget_seconds
        self._registrations: dict[str, tuple[float, Machine]] = {}
        self._fleet: tuple[float, Mapping[str, Machine]] = (float("-inf"), {})
        self._reading_fleet: asyncio.Task[Mapping[str, Machine]] | None = None
        self._computed: dict[str, tuple[float, Vector | Unusable]] = {}
        self._lake_is_warm = False
        self._wanted: dict[str, asyncio.Future[FeatureVector | None]] = {}
        self._fetching: asyncio.Task[None] | None = None
        self._running: dict[tuple[str | int, ...], asyncio.Task[dict[str, Vector | Unusable]]] = {}

    # --- registrations ----------------------------------------------------------------------------

    async def machine(self, machine_id: str) -> Machine:
        """The registration; `UnknownMachine` when neither store has one."""
        known = self._registrations.get(machine_id)
        if known is not None and self._clock() - known[0] < REMEMBER_SECONDS:
            return known[1]
        machine = (await self.registered([machine_id])).get(machine_id)
        if machine is None:
            raise UnknownMachine(machine_id)
        return machine

    async def registered(self, machine_ids: Sequence[str]) -> dict[str, Machine]:
        """Registrations of those that have one in either store, in one round trip."""
        now = self._clock()
        found, ask = {}, []
        for machine_id in machine_ids:
            known = self._registrations.get(machine_id)
            if known is not None and now - known[0] < REMEMBER_SECONDS:
                found[machine_id] = known[1]
            else:
                ask.append(machine_id)
        if not ask:
            return found
        try:
            fresh = await self._store.machines(ask)
        except ServiceUnavailable:
            fresh = {m: self._registrations[m][1] for m in ask if m in self._registrations}
        if len(fresh) < len(ask):
            fresh = {**await self._fleet_of_lake(), **fresh}
        for machine_id in ask:
            machine = fresh.get(machine_id)
            if machine is not None and machine.machine_class in self._classes:
                self._registrations[machine_id] = (now, machine)
                found[machine_id] = machine
        return found

    async def machines(self) -> list[Machine]:
        """Every registered machine of a known class, sorted by id."""
        ids = set(await self._fleet_of_lake())
        try:
            ids.update(await self._store.machine_ids())
        except ServiceUnavailable as error:
            log.warning("the fleet is listed from the lake: %s", error)
        return list((await self.registered(sorted(ids))).values())

    def machine_class(self, machine: Machine) -> MachineClass:
        """The machine's class."""
        return self._classes[machine.machine_class]

    async def _fleet_of_lake(self) -> Mapping[str, Machine]:
        read_at, fleet = self._fleet
        if self._clock() - read_at < REMEMBER_SECONDS / 2:
            return fleet
        if self._reading_fleet is None:
            self._reading_fleet = asyncio.create_task(self._read_fleet())
        if fleet and self._clock() - read_at < REMEMBER_SECONDS:
            return fleet  # a little old; nobody waits for the next
        return await asyncio.shield(self._reading_fleet)

    async def _read_fleet(self) -> Mapping[str, Machine]:
        fleet = self._fleet[1]
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._budget):
                fleet = await loop.run_in_executor(self._executor, self._lake.machines)
        except (AegisError, OSError, TimeoutError) as error:
            log.warning("the lake's list of machines cannot be read: %s", error)
        self._fleet = (self._clock(), fleet)
        self._reading_fleet = None
        return fleet

    # --- vectors ----------------------------------------------------------------------------------

    async def vector(self, machine: Machine, at: At = "now") -> Vector | Unusable:
        """The machine's vector as of `at`, or why there is none."""
        if not isinstance(at, str):
            return (await self._on_demand([machine], at))[machine.machine_id]
        found = await self._fetch(machine.machine_id)
        cached = self._cached(machine, found, at)
        return cached or (await self._on_demand([machine], at))[machine.machine_id]

    async def vectors(self, machines: Sequence[Machine], at: At = "now") -> list[Vector | Unusable]:
        """Vectors in the order of `machines`: one round trip, then the lake for what is missing."""
        found: Mapping[str, FeatureVector] = {}
        if isinstance(at, str):
            try:
                found = await self._store.features_of([m.machine_id for m in machines])
            except ServiceUnavailable as error:
                log.warning("features are read from the lake: %s", error)
        answers = [self._cached(machine, found.get(machine.machine_id), at) for machine in machines]
        missing = {m.machine_id: m for m, a in zip(machines, answers, strict=True) if a is None}
        computed = await self._on_demand(list(missing.values()), at) if missing else {}
        return [
            answer or computed[machine.machine_id]
            for machine, answer in zip(machines, answers, strict=True)
        ]

    async def _fetch(self, machine_id: str) -> FeatureVector | None:
        """One machine's stored vector; questions asked while a read is under way share the next.

        A read costs 0.2 ms whether for one machine or a dozen.
        """
        wanted = self._wanted.get(machine_id)
        if wanted is None:
            wanted = self._wanted[machine_id] = asyncio.get_running_loop().create_future()
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch_wanted())
        return await asyncio.shield(wanted)

    async def _fetch_wanted(self) -> None:
        try:
            while self._wanted:
                wanted, self._wanted = self._wanted, {}
                try:
                    found = await self._store.features_of(list(wanted))
                except ServiceUnavailable as error:
                    log.warning("features are read from the lake: %s", error)
                    found = {}
                except BaseException:
                    for future in wanted.values():
                        future.cancel()
                    raise
                for machine_id, future in wanted.items():
                    future.set_result(found.get(machine_id))
        finally:
            self._fetching = None

    def _cached(self, machine: Machine, found: FeatureVector | None, at: At) -> Vector | None:
        """The store's vector if it may be used as it is."""
        if found is None:
            return None
        machine_class = self._classes[machine.machine_class]
        if found.feature_set != machine_class.feature_set:
            return None
        if at == "now" and self._age(found.ts, machine_class, at) > machine_class.stale_after:
            return None
        return Vector(found.vector, found.feature_set, found.ts, found.coverage, "cache")

    async def _on_demand(self, machines: Sequence[Machine], at: At) -> dict[str, Vector | Unusable]:
        """Vectors from the lake; one scan per class, answers of the last moments used again."""
        answers: dict[str, Vector | Unusable] = {}
        groups: dict[str, list[Machine]] = {}
        for machine in machines:
            known = self._computed.get(machine.machine_id) if at == "now" else None
            if known is not None and self._clock() - known[0] < REMEMBER_LAKE_SECONDS:
                answers[machine.machine_id] = known[1]
            else:
                groups.setdefault(machine.machine_class, []).append(machine)
        for group in groups.values():
            answers |= await self._bounded(group, at)
        return answers

    async def _bounded(self, group: list[Machine], at: At) -> dict[str, Vector | Unusable]:
        key: tuple[str | int, ...] = (*(m.machine_id for m in group), at)
        task = self._running.get(key)
        if task is None:
            if len(self._running) >= PENDING:
                return _all(group, Cause.TIME_BUDGET, "Too many answers wait for the lake.")
            task = asyncio.create_task(self._compute(group, at))
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))
        budget = self._budget + PER_MACHINE_SECONDS * (len(group) - 1)
        if not self._lake_is_warm:
            budget += COLD_SECONDS
        try:
            with stepping_aside():
                async with asyncio.timeout(budget):
                    # Shielded: a reading that comes too late for this answer serves the next.
                    return await asyncio.shield(task)
        except TimeoutError:
            detail = f"There are no fresh features, and the lake did not give them in {budget:g} s."
            return _all(group, Cause.TIME_BUDGET, detail)

    async def _compute(self, group: list[Machine], at: At) -> dict[str, Vector | Unusable]:
        machine_class = self._classes[group[0].machine_class]
        until = at if isinstance(at, int) else None
        loop = asyncio.get_running_loop()
        try:
            vectors = await loop.run_in_executor(
                self._executor, self._lake.vectors, group, machine_class, until
            )
        except Exception as error:  # polars and deltalake raise many kinds
            log.warning("on-demand features of %d machines failed", len(group), exc_info=error)
            detail = "There are no fresh features, and the lake cannot be read."
            answers = _all(group, Cause.LAKE_AWAY, detail)
        else:
            self._lake_is_warm = True
            answers = {
                m.machine_id: self._judge_age(vectors.get(m.machine_id), machine_class, at)
                for m in group
            }
        if at == "now":
            if len(self._computed) > REMEMBERED:
                self._computed.clear()
            self._computed |= {m: (self._clock(), answer) for m, answer in answers.items()}
        return answers

    def _judge_age(
        self, vector: Vector | None, machine_class: MachineClass, at: At
    ) -> Vector | Unusable:
        if vector is None or vector.at is None:
            return Unusable(Cause.NO_READINGS, "There is no reading of this machine.")
        age = self._age(vector.at, machine_class, at)
        if at != "latest" and age > machine_class.stale_after:
            limit = machine_class.stale_after // US_PER_SECOND
            return Unusable(
                Cause.STALE,
                f"The newest reading is {age // US_PER_SECOND} s old; the limit is {limit} s.",
                vector.at,
            )
        return vector

    def _age(self, ts: int, machine_class: MachineClass, at: At) -> int:
        """Age in µs; 0 on a cycle clock asked for now, which has no wall-clock time."""
        if isinstance(at, int):
            return at - ts
        if machine_class.clock is Clock.CYCLES:
            return 0
        return round(self._clock() * US_PER_SECOND) - ts


def _all(group: Sequence[Machine], cause: Cause, detail: str) -> dict[str, Vector | Unusable]:
    return {m.machine_id: Unusable(cause, detail) for m in group}
