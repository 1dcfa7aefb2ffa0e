"""`aegisops evaluate`: how good would predictions be on this data? Over the product's whole path.

files → Kafka → lake writer → Delta → Dagster assets → training and measurement, in a data folder
of its own.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aegisops.cli import output, runs
from aegisops.errors import ConfigurationError, ServiceUnavailable

if TYPE_CHECKING:
    from aegisops.cli.stack import Stack
    from aegisops.importers import Imported
    from aegisops.lake import Lake
    from aegisops.machines import MachineClass
    from aegisops.settings import Settings

ARRIVAL_SECONDS = 60.0
ANY_AGE_DAYS = 100_000.0
"""History is old by intention; the lake writer of an evaluation accepts it."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)


def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder with the files.", exists=True)],
    *,
    machine_class: Annotated[str, typer.Option(help="Shipped class, or a .toml file.")],
    split_at: Annotated[
        str, typer.Option(help="Train before, test from here: a time, or a cycle number.")
    ],
    mapping: Annotated[
        Path | None,
        typer.Option(help="Mapping file; default: the folder's mapping.toml, or the shipped one."),
    ] = None,
    horizon: Annotated[
        list[str] | None, typer.Option(help="Horizons to report, such as 24h or 30c (repeatable).")
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="File for the whole report; - for stdout.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep lake and promoted model here, for `aegisops predict`.")
    ] = None,
    replicates: Annotated[int, typer.Option(min=20, help="Bootstrap draws per interval.")] = 200,
) -> None:
    """Publish a folder's data through Kafka, build features, train, and report how good it is."""
    from aegisops.cli.stack import materialize
    from aegisops.importers import load
    from aegisops.machines import load_class

    started = time.monotonic()
    declared = load_class(machine_class)
    split = _position(split_at, declared)
    imported = load(folder, mapping, declared)
    for warning in imported.warnings:
        output.note(f"[yellow]note[/] {warning}")
    with _data_folder(keep) as data_dir, runs.hold(data_dir):
        settings = _settings(data_dir, declared, machine_class)
        report: dict[str, Any] = _through_the_path(settings, imported)
        materialize(settings, declared.name, "build_features")
        report |= _measure(settings, declared, split, horizon, replicates)
        if keep is not None:
            _promote(settings, declared)
    report["seconds"] = round(time.monotonic() - started, 1)
    if json is not None:
        output.as_json(report, json)
    if json is None or str(json) != "-":
        _show(report)
    if keep is not None:
        machine = imported.machines["machine_id"][0]
        output.note(f"kept in {keep}; ask with: aegisops predict {machine} --data-dir {keep}")


def _promote(settings: Settings, declared: MachineClass) -> None:
    """Train and promote a model to ask; the figures stand even when the data is too thin for it."""
    from aegisops.cli.stack import materialize

    made = materialize(settings, declared.name, "train_and_promote")
    if made["no_model"]:
        output.note(f"[yellow]no model[/] ({made['no_model']}); limit rules answer")


def _position(text: str, declared: MachineClass) -> int:
    """µs on the class's clock of an ISO time, or of a cycle number."""
    from datetime import UTC

    from aegisops.machines import Clock
    from aegisops.machines.model import US_PER_SECOND

    try:
        if declared.clock is Clock.CYCLES:
            return round(float(text.removesuffix("c")) * US_PER_SECOND)
        moment = datetime.fromisoformat(text)
    except ValueError:
        kind = (
            "a cycle number" if declared.clock is Clock.CYCLES else "a time like 2015-03-01T00:00"
        )
        raise ConfigurationError(f"--split-at {text}: write {kind}") from None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * US_PER_SECOND)


@contextlib.contextmanager
def _data_folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="aegisops-evaluate-") as folder:
            yield Path(folder)
        return
    if keep.is_dir() and any(keep.iterdir()) and not (keep / "lake").is_dir():
        raise ConfigurationError(f"{keep} holds other files; name a new folder for --keep")
    if keep.exists():  # an earlier evaluation, complete or not: never mixed with this one
        if runs.is_running(keep):
            with runs.hold(keep):
                pass
        shutil.rmtree(keep)
    keep.mkdir(parents=True)
    yield keep.absolute()


def _settings(data_dir: Path, declared: MachineClass, source: str) -> Settings:
    """Settings of a folder of its own; a class given as a file goes into it."""
    from aegisops.settings import Settings

    classes = data_dir / "classes"
    classes.mkdir()
    if Path(source).suffix == ".toml":
        shutil.copy(source, classes / f"{declared.name}.toml")
    base = Settings()
    stream = base.stream.model_copy(
        update={"max_past_days": ANY_AGE_DAYS, "lake_commit_seconds": 1.0}
    )
    update = {"data_dir": data_dir, "lake_url": "", "classes_dir": classes, "stream": stream}
    return base.model_copy(update=update)


def _through_the_path(settings: Settings, imported: Imported) -> dict[str, Any]:
    """Kafka → Delta; returns what went in and what arrived."""
    from aegisops.bus import Publisher
    from aegisops.cli.stack import Stack
    from aegisops.importers import ConsumerGroups, publish
    from aegisops.lake import Lake

    lake = Lake(settings.lake_root)
    with Stack(settings) as stack:
        stack.start_services(redis=False)
        stack.start_lake_writer()
        with output.steps() as progress, Publisher(stack.settings) as publisher:
            task = progress.add_task("Kafka → Delta", note="")
            publish(
                publisher,
                lake,
                imported,
                now_us=time.time_ns() // 1_000,
                stream=settings.stream,
                consumers=ConsumerGroups(stack.settings.kafka),
                tell=lambda what, done, total: progress.update(
                    task, completed=done, total=total, note=what
                ),
            )
        return _arrived(stack, lake, imported)


def _arrived(stack: Stack, lake: Lake, imported: Imported) -> dict[str, Any]:
    """Counts in and out, once everything sent has arrived or was refused."""
    import polars as pl

    from aegisops.schemas.tables import DEAD_LETTERS, EVENTS, READINGS, WAVEFORMS

    def rows(table: Any) -> int:  # noqa: ANN401 - a Table
        return int(lake.scan(table).select(pl.len()).collect().item())

    sent = imported.readings.height + imported.events.height
    until = time.monotonic() + ARRIVAL_SECONDS
    while (found := sum(map(rows, (READINGS, WAVEFORMS, EVENTS, DEAD_LETTERS)))) < sent:
        if time.monotonic() > until:
            raise ServiceUnavailable(
                f"{sent:,} rows were sent and {found:,} have arrived after {ARRIVAL_SECONDS:g} s; "
                f"see {stack.settings.data_dir}/logs/lake-writer.log"
            )
        time.sleep(0.2)
    place = ["_topic", "_partition", "_offset", "_index"]
    distinct = lake.scan(READINGS).select(place).unique().select(pl.len()).collect().item()
    values = lake.scan(READINGS).select("machine_id", "channel", "ts").unique()
    in_delta = rows(READINGS) + rows(WAVEFORMS)
    return {
        "readings_in": imported.readings.height,
        "readings_in_delta": in_delta,
        "duplicates": rows(READINGS) - int(distinct),
        "distinct_readings_in_delta": int(values.select(pl.len()).collect().item()),
        "events_in": imported.events.height,
        "events_in_delta": rows(EVENTS),
        "refused": rows(DEAD_LETTERS),
        "machines": imported.machines.height,
    }


def _measure(
    settings: Settings,
    declared: MachineClass,
    split: int,
    horizons: list[str] | None,
    replicates: int,
) -> dict[str, Any]:
    import polars as pl

    from aegisops.lake import Lake
    from aegisops.machines import Clock
    from aegisops.modelling import evaluate as modelling
    from aegisops.schemas.tables import EVENTS, FEATURES

    lake = Lake(settings.lake_root)
    features = lake.scan(FEATURES).filter(pl.col("machine_class") == declared.name).collect()
    events = lake.scan(EVENTS).collect()
    hour = declared.hour
    unit = "c" if declared.clock is Clock.CYCLES else "h"
    base = f"{declared.horizon / hour:g}{unit}"
    chosen = horizons or list(dict.fromkeys((base, f"{2 * declared.horizon / hour:g}{unit}")))
    with output.steps() as progress:
        task = progress.add_task("train and measure", total=1.0, note="")
        return modelling.evaluate(
            features,
            events,
            declared,
            split_at=split,
            horizons=chosen,
            replicates=replicates,
            progress=lambda what, share: progress.update(task, completed=share, note=what),
        )


def _show(report: dict[str, Any]) -> None:
    output.say(
        f"{report['readings_in']:,} readings in, {report['readings_in_delta']:,} in Delta, "
        f"{report['duplicates']} duplicates, {report['refused']} refused"
    )
    rows = []
    for horizon, choices in report["horizons"].items():
        for choice in ("with_errors", "without_errors"):
            if choice not in choices:
                continue
            figures = choices[choice]["any"]
            rows.append((horizon, choice.replace("_", " "), *_figures(figures)))
    headings = (
        "Horizon",
        "Inputs",
        "PR-AUC (95 %)",
        "ROC-AUC",
        "Brier",
        "Precision",
        "Recall",
        "F1",
    )
    output.results.print(output.table("Any failure", headings, rows))


def _figures(figures: dict[str, Any]) -> tuple[str, ...]:
    def shown(name: str) -> str:
        value = figures.get(name)
        return "–" if value is None else f"{value:.3f}"

    interval = (figures.get("intervals") or {}).get("pr_auc")
    area = shown("pr_auc")
    if interval and None not in interval.values():
        area += f" ({interval['low']:.2f}–{interval['high']:.2f})"
    return (area, *map(shown, ("roc_auc", "brier", "precision", "recall", "f1")))
