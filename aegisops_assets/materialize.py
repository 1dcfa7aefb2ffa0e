"""Runs a job in this process: `python -m aegisops_assets.materialize --job everything --json F`.

The run is recorded in the Dagster instance of DAGSTER_HOME, so that the UI shows it.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from aegisops.errors import AegisError
from aegisops.settings import Settings
from aegisops_assets.automation import JOBS
from aegisops_assets.definitions import build_definitions
from aegisops_assets.steps.platform import Platform

_REBUILT = {"silver__tiles", "gold__features", "gold__hourly"}
_LABELS = "gold__labels"
_WITHOUT_MLFLOW = {"build_features", "drift", "check_bronze", "parity", "maintenance"}


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when the run succeeded, 1 when a step or a blocking check failed."""
    options = _parser().parse_args(arguments)
    try:
        platform = Platform.of(Settings())
        result = run(platform, options.job, options.classes, options.horizon, full=options.full)
    except AegisError as error:
        Console(stderr=True).print(f"[red]{error}[/red]", highlight=False)
        return 1
    text = json.dumps(result, indent=2)
    if options.json is not None:
        options.json.write_text(text)
    if not result["success"]:
        why = {name: result[name] for name in ("error", "failed_checks") if result.get(name)}
        Console(stderr=True).print(json.dumps(why, indent=2), highlight=False, markup=False)
    return 0 if result["success"] else 1


def run(
    platform: Platform,
    job: str,
    classes: list[str] | None = None,
    horizon: str = "",
    *,
    full: bool = False,
    instance: dg.DagsterInstance | None = None,
) -> dict[str, Any]:
    """Run a job over a platform with a progress bar; what it made, per asset, and failed checks."""
    definition = build_definitions(platform).resolve_job_def(job)
    steps = [node.name for node in definition.nodes]
    run_id = str(uuid.uuid4())
    # MLflow takes seconds to open and is needed only after the features are done.
    beside = None if job in _WITHOUT_MLFLOW else platform.registry.open
    with (
        instance or dg.DagsterInstance.get() as held,
        _progress(held, run_id, job, len(steps), beside),
    ):
        done = definition.execute_in_process(
            run_config={
                "ops": _config(steps, classes or [], horizon, full=full),
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            instance=held,
            run_id=run_id,
            raise_on_error=False,
        )
    result: dict[str, Any] = {
        "job": job,
        "run_id": run_id,
        "success": done.success,
        "assets": {},
        "failed_checks": {},
    }
    for event in done.all_events:
        _note(event, result)
    return result


def _config(
    steps: list[str], classes: list[str], horizon: str, *, full: bool
) -> dict[str, dict[str, dict[str, Any]]]:
    config: dict[str, dict[str, Any]] = {step: {"classes": classes} for step in steps}
    for step in _REBUILT & set(steps):
        config[step]["full"] = full
    if _LABELS in config:
        config[_LABELS]["horizon"] = horizon
    return {step: {"config": values} for step, values in config.items()}


@contextmanager
def _progress(
    instance: dg.DagsterInstance,
    run_id: str,
    job: str,
    steps: int,
    beside: Callable[[], None] | None,
) -> Iterator[None]:
    """A bar on stderr that follows the run's events from a thread of its own.

    `beside` is called once, in another thread, when the first step runs. Not before: Dagster makes
    its databases with alembic too, and alembic knows only one migration in a process.
    """
    over = threading.Event()
    waiting = [beside] if beside is not None else []
    columns = (TextColumn("{task.description:<20}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(job, total=steps)

        def follow() -> None:
            while not over.wait(0.2):
                kinds = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_SUCCESS}
                found = [
                    r.event_log_entry
                    for r in instance.get_records_for_run(run_id, of_type=kinds).records
                ]
                finished = sum(
                    e.dagster_event_type == dg.DagsterEventType.STEP_SUCCESS for e in found
                )
                if found:
                    if waiting:
                        threading.Thread(target=waiting.pop(), daemon=True).start()
                    name = str(found[-1].step_key).replace("__", "/")
                    bar.update(task, completed=finished, description=name)

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield
        finally:
            over.set()
            follower.join()
            bar.update(task, completed=steps, description=job)


def _note(event: dg.DagsterEvent, result: dict[str, Any]) -> None:
    if event.is_step_materialization:
        made = event.step_materialization_data.materialization
        result["assets"]["/".join(made.asset_key.path)] = {
            name: value.value
            for name, value in made.metadata.items()
            if isinstance(value, dg.JsonMetadataValue | dg.IntMetadataValue)
        }
    elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        check = event.asset_check_evaluation_data
        if not check.passed:
            name = f"{'/'.join(check.asset_key.path)}:{check.check_name}"
            result["failed_checks"][name] = check.description
    elif event.is_step_failure:
        error = event.step_failure_data.error
        cause = error.cause if error is not None and error.cause is not None else error
        result["error"] = f"{event.step_key}: {cause.message.strip() if cause else 'failed'}"
    elif event.event_type == dg.DagsterEventType.RUN_SUCCESS:
        result["success"] = True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m aegisops_assets.materialize")
    parser.add_argument("--job", default="everything", choices=[job.name for job in JOBS])
    parser.add_argument("--class", dest="classes", action="append", metavar="NAME")
    parser.add_argument("--horizon", default="", help="label horizon such as 48h")
    parser.add_argument("--full", action="store_true", help="rebuild all days")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was made")
    return parser


if __name__ == "__main__":
    sys.exit(main())
