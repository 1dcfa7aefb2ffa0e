"""`aegisops demo`: a simulated fleet, from first reading to explained predictions.

    services ─┬─ history ─┬─ assets: tiles → features → labels → model → promotion ─┬─ ask
              └─ UI       └─ lake writer, feature worker, live readings, API        ┘

The data folder is new at every start (docs/adr/0006): half-finished runs cannot be continued
wrongly.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aegisops.cli import output, runs
from aegisops.cli.access import console_link

if TYPE_CHECKING:
    from aegisops.cli.stack import Stack
    from aegisops.settings import Settings

SHOWN = 5
COMMIT_SECONDS = 2.0
ANSWER_SECONDS = 60.0
MACHINE_CLASS = "cnc_spindle"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    *,
    once: Annotated[bool, typer.Option("--once", help="Stop after the result.")] = False,
    json: Annotated[
        Path | None, typer.Option("--json", help="File for the result as JSON.")
    ] = None,
    machines: Annotated[int, typer.Option(min=3, help="Machines in the fleet.")] = 20,
    days: Annotated[float, typer.Option(min=7, help="Days of history.")] = 21,
    seed: Annotated[int, typer.Option(help="Same seed, same fleet.")] = 7,
) -> None:
    """Run the whole system on a simulated fleet and print the riskiest machines.

    Starts from an empty data folder (.aegis/demo) and keeps running until Ctrl-C, which stops
    everything. Afterwards the folder stays for `aegisops sql` until the next demo.
    """
    from aegisops.settings import Settings

    base = runs.base_dir()
    _stop_on_signals()
    with runs.hold(base):
        folder = base / "demo"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        settings = Settings()
        # What the API said last is in the lake when the demo ends: at most one commit later.
        stream = settings.stream.model_copy(update={"lake_commit_seconds": COMMIT_SECONDS})
        settings = settings.model_copy(
            update={"data_dir": folder, "lake_url": "", "stream": stream}
        )
        try:
            _run(base, settings, once=once, json=json, fleet=(machines, days, seed))
        except KeyboardInterrupt:
            output.note("stopped")
            if once:
                raise typer.Exit(130) from None


def _run(
    base: Path,
    settings: Settings,
    *,
    once: bool,
    json: Path | None,
    fleet: tuple[int, float, int],
) -> None:
    from aegisops.cli.stack import Stack, materialize, prepare_dagster_home

    watch = _Watch()
    machines, days, seed = fleet
    with Stack(settings) as stack, ThreadPoolExecutor(1) as beside:
        for line in stack.moved:
            output.note(f"[yellow]note[/] {line}")
        with watch.step("services: Kafka broker, Redis, schema registry"):
            stack.start_services()
        run = runs.Run(
            os.getpid(), "demo", str(settings.data_dir), runs.as_environment(stack.settings)
        )
        run.urls = stack.urls
        run.save(base)
        # They need seconds to start and nothing of what comes next.
        stack.start_lake_writer()
        stack.start_api()
        home = beside.submit(prepare_dagster_home, stack.settings)
        with watch.step(f"history: {machines} machines, {days:g} days"):
            options = ["--machines", machines, "--days", days, "--seed", seed]
            _simulate(stack, "--data-dir", settings.data_dir, *options)
        stack.start_feature_worker()  # it begins with the history's last hour
        stack.start_simulator()
        home.result()
        stack.start_dagster()
        with watch.step("assets: tiles, features, labels, training, validation, promotion"):
            trained = materialize(stack.settings, MACHINE_CLASS, "everything")
        if trained["no_model"]:
            output.note(f"[yellow]no model[/] ({trained['no_model']}); limit rules answer")
        stack.start_alarm_engine()
        with watch.step("API: model, features and an answer for every machine"):
            stack.wait_for_api()
            rung = "thresholds" if trained["no_model"] else "production"
            answers = _ask(stack, machines, rung)
        with watch.step("Dagster UI"):
            stack.wait_for_dagster()
        run.processes = stack.pids()
        result = {
            "machines": machines,
            "days": days,
            "seed": seed,
            "predictions": answers,
            "training": trained,
            "urls": stack.urls,
            "data_dir": str(settings.data_dir),
            "seconds": watch.seconds,
        }
        if json is not None:
            output.as_json(result, json)
        run.ready = True
        run.save(base)
        _show(answers, stack.urls, console_link(stack.settings))
        if not once:
            stack.start_dagster_daemon()
            output.note("running; Ctrl-C stops everything")
            threading.Event().wait()


def _show(answers: list[dict[str, Any]], urls: dict[str, str], console: str) -> None:
    output.say(f"Console: {console}")
    title = f"Riskiest of {len(answers)} machines"
    output.results.print(output.predictions_table(title, answers[:SHOWN]))
    output.say("Console: aegisops console --open   (the link above, anew)")
    output.say(f"API:     {urls['API']}/api/docs   (token: aegisops token)")
    output.say(f"Dagster: {urls['Dagster']}")
    output.say("Alarms:  aegisops alarms list")
    output.say('SQL:     aegisops sql -c "SELECT * FROM risk_ranking"')


def _ask(stack: Stack, machines: int, rung: str) -> list[dict[str, Any]]:
    """Answers for the whole fleet, as soon as `rung` gives one for every machine that is on.

    A machine under repair sends nothing; its answer is an abstention, and rightly so.
    """
    from aegisops.cli.api import Api
    from aegisops.errors import ServiceUnavailable

    api = Api(stack.settings)
    until = time.monotonic() + ANSWER_SECONDS
    while True:
        answers = api.predict_fleet(all=True)
        good = [a for a in answers if a["served_by"] == rung and a["source"] == "cache"]
        silent = [a for a in answers if a["cause"] == "stale"]
        if len(good) > len(silent) and len(good) + len(silent) == machines:
            return answers
        if time.monotonic() > until:
            causes = sorted({f"{a['cause']}: {a['detail']}" for a in answers if a not in good})
            raise ServiceUnavailable(
                f"after {ANSWER_SECONDS:g} s only {len(good)} of {machines} machines have an "
                f"answer of {rung} over live features ({'; '.join(causes) or 'no machines'}); "
                f"see the logs in {stack.settings.data_dir}/logs"
            )
        time.sleep(0.3)


def _simulate(stack: Stack, *arguments: object) -> None:
    from aegisops.cli.stack import run_child

    command = [sys.executable, "-m", "aegisops.cli", "simulate", *map(str, arguments)]
    run_child(command, stack.environment)


class _Watch:
    """Times the steps and says when each begins and ends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.monotonic()

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        begun = time.monotonic()
        output.note(f"[dim]{begun - self._started:5.1f} s[/]  {what}")
        yield
        self.seconds[what.partition(":")[0]] = round(time.monotonic() - begun, 2)
        self.seconds["total"] = round(time.monotonic() - self._started, 2)


def _stop_on_signals() -> None:
    """`aegisops down` ends a run the way Ctrl-C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):  # a background job starts with SIGINT ignored
        signal.signal(number, stop)
