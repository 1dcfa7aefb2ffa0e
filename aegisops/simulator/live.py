"""`python -m aegisops.simulator.live`: the fleet's live readings, from where history ends.

To Kafka, or with `--opcua` to the nodes of an OPC UA server, as a plant's come. Without arguments
it continues the fleet that the lake holds. Settings come from AEGIS_*.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import polars as pl

from aegisops.errors import AegisError, ConfigurationError, Retryable
from aegisops.lake import Lake
from aegisops.names import READINGS_TOPIC
from aegisops.schemas.tables import READINGS
from aegisops.settings import Settings
from aegisops.simulator.fleet import FleetPlan, fleet_of
from aegisops.simulator.live_fleet import LiveFleet
from aegisops.simulator.loading import plan_in
from aegisops.simulator.publishing import (
    Defect,
    DefectFile,
    Pace,
    Publisher,
    defect_path,
    run,
)

log = logging.getLogger("aegisops.simulator")

WATCHED_SECONDS = 0.1


def resume_at(lake: Lake, plan: FleetPlan) -> int:
    """Where an earlier run stopped: after the lake's newest live reading, or the plan's end."""
    last_day = datetime.fromtimestamp(plan.end / 1e6, UTC).date()
    newest = (
        lake.scan(READINGS)
        .filter(
            (pl.col("date") >= last_day)
            & pl.col("_topic").str.starts_with(READINGS_TOPIC)  # followed by @incarnation
            & pl.col("machine_id").is_in([m.machine_id for m in fleet_of(plan)])
        )
        .select(pl.col("ts").cast(pl.Int64).max())
        .collect()
        .item()
    )
    return plan.end if newest is None else max(plan.end, newest + 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM; returns the exit code (75 = worth another try)."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    for chatty in ("asyncua", "asyncuagds"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    options = _parser().parse_args(arguments)
    try:
        _live(Settings(), options)
    except AegisError as error:
        log.error("%s", error)  # noqa: TRY400 - a message for people, not a trace
        return 75 if isinstance(error, Retryable) else 2
    return 0


def _live(settings: Settings, options: argparse.Namespace) -> None:
    lake = Lake(settings.lake_root)
    plan = _plan(lake, options)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with _publisher(settings, options, plan, stop) as publisher:
        if not stop.is_set():
            _send(settings, options, (plan, resume_at(lake, plan)), publisher, stop)


def _send(
    settings: Settings,
    options: argparse.Namespace,
    resumed: tuple[FleetPlan, int],
    publisher: Publisher,
    stop: threading.Event,
) -> None:
    plan, begin = resumed
    now = _now()
    oldest = now - options.max_catch_up // timedelta(microseconds=1)
    fleet = LiveFleet(plan, resume_at=begin, readings_from=oldest)
    begin = max(begin, min(oldest, now))
    for defect in map(Defect.parse, options.inject):
        fleet.inject(defect.machine_id, defect.mode, defect.hours, defect.speed)
    behind = timedelta(microseconds=max(now - begin, 0))
    log.info("%d machines live; catching up %s at speed %g", plan.machines, behind, options.speed)
    sent = run(
        fleet,
        publisher,
        Pace(begin, now, options.speed),
        clock=_now,
        wait=lambda: stop.wait(options.interval),
        defects=DefectFile(defect_path(settings.data_dir)).new,
        complain=log.warning,
    )
    log.info("stopped after %d messages", sent)


@contextlib.contextmanager
def _publisher(
    settings: Settings, options: argparse.Namespace, plan: FleetPlan, stop: threading.Event
) -> Iterator[Publisher]:
    """Kafka, or a plant's server once somebody watches it: what is written before is seen by none.

    Yields a server that nobody watched only when told to stop.
    """
    if options.opcua is None:
        from aegisops.bus import Publisher as KafkaPublisher

        with KafkaPublisher(settings) as kafka:
            yield kafka
        return
    from aegisops.simulator import plant

    ids = [machine.machine_id for machine in fleet_of(plan)]
    with plant.commissioned(settings, f"opc.tcp://{options.opcua}", plan.machine_class, ids) as up:
        log.info("OPC UA server on %s, waiting for a client", options.opcua)
        while not up.is_watched and not stop.wait(WATCHED_SECONDS):
            pass
        yield up


def _plan(lake: Lake, options: argparse.Namespace) -> FleetPlan:
    if options.history_end is not None:
        return FleetPlan.ending(
            options.history_end,
            seed=options.seed,
            machines=options.machines,
            days=options.history_days,
        )
    found = plan_in(lake)
    if found is None:
        raise ConfigurationError(
            f"{lake.root} holds no simulated fleet to continue; run `aegisops simulate` first or "
            "give --history-end"
        )
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m aegisops.simulator.live", description=__doc__)
    parser.add_argument("--history-end", type=_time, help="ISO time; default: the lake's fleet")
    parser.add_argument("--history-days", type=float, default=21, help="with --history-end")
    parser.add_argument("--seed", type=int, default=7, help="with --history-end")
    parser.add_argument("--machines", type=int, default=20, help="with --history-end")
    parser.add_argument("--opcua", metavar="HOST:PORT", help="show it there, not to Kafka")
    parser.add_argument(
        "--speed", type=float, default=600, help="catching up, times real time; 0 = at once"
    )
    parser.add_argument("--interval", type=float, default=0.5, help="seconds between rounds")
    parser.add_argument(
        "--max-catch-up",
        type=lambda text: timedelta(hours=float(text)),
        default=timedelta(hours=6),
        metavar="HOURS",
        help="older readings are left out, as if the machines had been off line",
    )
    parser.add_argument(
        "--inject",
        action="append",
        default=[],
        metavar="MACHINE:MODE[:HOURS]",
        help="start a defect",
    )
    return parser


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _now() -> int:
    return time.time_ns() // 1000


if __name__ == "__main__":
    sys.exit(main())
