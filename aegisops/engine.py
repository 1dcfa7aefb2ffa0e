"""Where independent jobs run: threads of this process, or the workers of a Dask cluster.

A job names its rows (table, version, machines, days) and never carries them; what it returns
does not depend on where it ran. This is the only module that imports Dask.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from aegisops.errors import ConfigurationError
from aegisops.settings import EngineSettings

if TYPE_CHECKING:
    import distributed

Job = TypeVar("Job")
Result = TypeVar("Result")


class Engine(Protocol):
    """Runs the same function over many jobs."""

    @property
    def workers(self) -> int:
        """Jobs that run at the same time."""

    def map(self, work: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """Results in the order of the jobs; a job's error is raised where its result would be.

        Only a few results wait at a time, so that a slow reader bounds the memory.
        """

    def close(self) -> None:
        """Stop workers that this engine started."""


class LocalEngine:
    """Threads. Polars and NumPy release the interpreter, so two threads keep two cores busy."""

    def __init__(self, workers: int = 0) -> None:
        """`workers`: 0 = one per processor."""
        self.workers = workers or os.cpu_count() or 1

    def map(self, work: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """See `Engine`."""
        if self.workers == 1 or len(jobs) == 1:
            yield from map(work, jobs)
            return
        with ThreadPoolExecutor(self.workers) as pool:
            yield from _in_order(lambda job: pool.submit(work, job), jobs, self.workers + 1)

    def close(self) -> None:
        """Threads end with each `map`."""


class DaskEngine:
    """Workers of a scheduler at `address`, or processes on this computer when it is empty.

    The workers need the same version of this package and must reach the lake.
    """

    def __init__(self, address: str = "", workers: int = 0, timeout: float = 10.0) -> None:
        """`workers`: processes to start when there is no address; 0 = one per processor."""
        self._timeout = timeout
        self._address = address
        self._wanted = workers
        self._client: distributed.Client | None = None

    @property
    def workers(self) -> int:
        """Threads of all workers."""
        return max(1, sum(map(int, self.client.nthreads().values())))

    @property
    def client(self) -> distributed.Client:
        """The connection, made at first use. Raises `ConfigurationError` when it cannot be."""
        if self._client is None:
            self._client = self._connect()
        return self._client

    def map(self, work: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """See `Engine`."""
        client = self.client

        def submit(job: Job) -> Any:  # noqa: ANN401 - Dask's future
            return client.submit(work, job, pure=False)

        yield from _in_order(submit, jobs, 2 * self.workers)

    def close(self) -> None:
        """Leave the cluster, and end it if it was started here."""
        if self._client is not None:
            cluster = self._client.cluster if not self._address else None
            self._client.close()
            if cluster is not None:
                cluster.close()
            self._client = None

    def _connect(self) -> distributed.Client:
        try:
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise ConfigurationError(
                "AEGIS_ENGINE__KIND=dask needs the extra: pip install 'aegisops[dask]'"
            ) from error
        if not self._address:
            cluster = LocalCluster(
                n_workers=self._wanted or os.cpu_count(),
                threads_per_worker=1,
                dashboard_address=None,
            )
            return Client(cluster)
        try:
            return Client(self._address, timeout=self._timeout)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"no Dask scheduler answers at {self._address} ({error}); see AEGIS_ENGINE__ADDRESS"
            ) from error


def of_settings(settings: EngineSettings) -> Engine:
    """The engine the settings name."""
    if settings.kind == "dask":
        return DaskEngine(settings.address, settings.workers)
    return LocalEngine(settings.workers)


def _in_order(
    submit: Callable[[Job], Future[Result]], jobs: Sequence[Job], most: int
) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            waiting.append(submit(job))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
