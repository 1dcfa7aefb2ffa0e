"""`aegisops models`: which models there are, which one answers, and how that is changed."""

from __future__ import annotations

import contextlib
import getpass
import json as json_text
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aegisops.cli import output, runs

if TYPE_CHECKING:
    from datetime import datetime

    from aegisops.releases import Decision, Releases
    from aegisops.settings import Settings

MachineClass = Annotated[
    str | None, typer.Option("--machine-class", help="Class; needed when several have models.")
]
By = Annotated[
    str | None, typer.Option(help="Who decides; an id, not a name. Default: your login.")
]
Reason = Annotated[str, typer.Option(help="Why; it is recorded.")]
DataDir = Annotated[Path | None, typer.Option(help="Data folder.")]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(no_args_is_help=True, help="Models: which there are and which answers.")
    group.command("list")(list_models)
    for command in (show, promote, rollback, shadow, compare, verify):
        group.command()(command)
    app.add_typer(group, name="models")


def list_models(
    *, machine_class: MachineClass = None, data_dir: DataDir = None, json: Json = False
) -> None:
    """Every registered model: alias, age, PR-AUC on the test fold, digest."""
    settings = runs.settings(data_dir)
    releases = _releases(settings)
    names = [machine_class] if machine_class else _classes(settings, releases)
    rows = [_summary(releases, name, v) for name in names for v in releases.registry.history(name)]
    if json:
        output.as_json(rows)
        return
    if not rows:
        output.say("no model is registered; run the training job (`aegisops demo` does)")
        return
    columns = ("Class", "Version", "No.", "Alias", "Age", "PR-AUC", "Digest")
    cells = [
        (
            row["machine_class"],
            row["version"],
            row["number"],
            ", ".join(row["aliases"]) or "–",
            _age(row["registered_at"]),
            "–" if row["pr_auc"] is None else f"{row['pr_auc']:.3f}",
            row["digest"][:12],
        )
        for row in rows
    ]
    output.results.print(output.table("Models", columns, cells))


def show(
    version: Annotated[str, typer.Argument(help="Version, or number in the registry.")],
    *,
    machine_class: MachineClass = None,
    data_dir: DataDir = None,
    open_report: Annotated[
        bool, typer.Option("--open", help="Open the validation report in the browser.")
    ] = False,
    json: Json = False,
) -> None:
    """One model with its evidence and everything that was decided about it."""
    settings = runs.settings(data_dir)
    releases = _releases(settings)
    name = machine_class or _only_class(settings, releases)
    summary = _summary(releases, name, releases.find(name, version))
    evidence = releases.evidence(name, summary["version"])
    report = releases.bundle(name, summary["version"]).with_name("report.html")
    summary["report"] = str(report) if report.exists() else None
    if open_report:
        _open(report)
    columns = ("decided_at", "decision", "decided_by", "reason")
    decisions = [
        {column: row[column] for column in columns}
        for row in releases.decisions(name)
        if row["model_digest"] == summary["digest"]
    ]
    if json:
        output.as_json(summary | {"evidence": evidence, "decisions": decisions})
        return
    for field, value in summary.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        output.say(f"{field:>14}  {'–' if shown in {None, ''} else shown}")
    checks = evidence.get("checks", [])
    cells = [(c["name"], "passed" if c["passed"] else "[red]failed[/]", c["why"]) for c in checks]
    output.results.print(output.table("Evidence", ("Check", "Result", "Why"), cells))
    said = [[str(row[column]) for column in columns] for row in decisions]
    output.results.print(output.table("Decisions", ("When", "What", "Who", "Why"), said))


def promote(
    version: Annotated[
        str, typer.Argument(help="Version, or number in the registry; default: the candidate.")
    ] = "",
    *,
    reason: Reason,
    by: By = None,
    machine_class: MachineClass = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Put a model into production if it passes the same gate as the ml/production asset.

    Exit code 1 when it was refused; the refusal is recorded too.
    """
    from aegisops.cli.stack import child_environment

    settings = runs.settings(data_dir)
    name = machine_class or _only_class(settings, _releases(settings))
    with tempfile.TemporaryDirectory(prefix="promote-") as folder:
        result = Path(folder) / "decision.json"
        command = [sys.executable, "-m", "aegisops_assets.promote", "--class", name]
        command += [f"--version={version}", f"--by={by or _login()}", f"--reason={reason}"]
        environment = os.environ | child_environment(settings)
        done = subprocess.run(
            [*command, "--json", str(result)],
            env=environment,
            stdout=subprocess.DEVNULL,
            check=False,
        )
        if not result.exists():  # it has said why on stderr
            raise typer.Exit(done.returncode or 1)
        decision = json_text.loads(result.read_text())
    if json:
        output.as_json(decision)
    else:
        what = "is in production" if decision["promoted"] else "was refused"
        output.say(f"{name} {decision['model_version']} {what}: {decision['reason']}")
    if not decision["promoted"]:
        raise typer.Exit(1)


def rollback(
    *,
    reason: Reason,
    by: By = None,
    machine_class: MachineClass = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Put the promoted model before the present one back into production; the API follows.

    A model that is no longer as signed is passed over. Repeating it goes further back.
    """
    settings = runs.settings(data_dir)
    releases = _releases(settings)
    name = machine_class or _only_class(settings, releases)
    made = releases.rollback(name, decided_by=by or _login(), reason=reason)
    _say(made, f"{name} {made.version} is in production again", json=json)


def shadow(
    version: Annotated[str, typer.Argument(help="Version, or number in the registry.")] = "",
    *,
    off: Annotated[bool, typer.Option("--off", help="End the shadow instead.")] = False,
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")] = "",
    by: By = None,
    machine_class: MachineClass = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Let a model score what production answers, without a say; or end it (--off).

    Compare both with: aegisops models compare
    """
    if off == bool(version):
        raise typer.BadParameter("give either VERSION or --off")
    settings = runs.settings(data_dir)
    releases = _releases(settings)
    name = machine_class or _only_class(settings, releases)
    who = by or _login()
    if not off:
        made = releases.shadow(name, version, decided_by=who, reason=reason)
        _say(made, f"{name} {made.version} scores in the shadow", json=json)
        return
    ended = releases.unshadow(name, decided_by=who, reason=reason)
    if ended is None:
        output.say(f"{name} has no shadow")
    else:
        _say(ended, f"{name} {ended.version} no longer scores in the shadow", json=json)


def compare(
    *, machine_class: MachineClass = None, data_dir: DataDir = None, json: Json = False
) -> None:
    """Production against the shadow: what both said of the same served vectors, and what came.

    Differences are paired, intervals are over machines. The same figures decide in ml/production.
    """
    from aegisops.cli import model_comparison

    settings = runs.settings(data_dir)
    releases = _releases(settings)
    name = machine_class or _only_class(settings, releases)
    found = model_comparison.compare(settings, releases, name)
    if json:
        told = {"machine_class": name, "is_enough": found.is_enough, "told": found.told}
        output.as_json(told | found.as_json())
    else:
        model_comparison.show(name, found)


def verify(
    *, machine_class: MachineClass = None, data_dir: DataDir = None, json: Json = False
) -> None:
    """Check signature and digest of every bundle, on disk and in MLflow, and of the pointers.

    Exit code 1 when anything is not as it was signed and registered.
    """
    from dataclasses import asdict

    from aegisops.bundle_check import verify_all

    settings = runs.settings(data_dir)
    releases = _releases(settings)
    names = [machine_class] if machine_class else _classes(settings, releases)
    found = verify_all(releases, names)
    if json:
        output.as_json([asdict(finding) for finding in found])
    else:
        cells = [
            (f.machine_class, f.version, f.where, f.digest[:12], f.problem or "valid")
            for f in found
        ]
        columns = ("Class", "Version", "Where", "Digest", "Result")
        output.results.print(output.table("Bundles", columns, cells))
    if any(finding.problem for finding in found):
        raise typer.Exit(1)


def _releases(settings: Settings) -> Releases:
    from aegisops.releases import Releases

    return Releases.of(settings)


def _classes(settings: Settings, releases: Releases) -> list[str]:
    """Classes that may have models: declared ones, and those with a bundle folder."""
    from aegisops.machines import load_classes

    folders = {p.name for p in releases.bundles.glob("*") if p.is_dir()}
    return sorted(folders | set(load_classes(settings.classes_dir)))


def _only_class(settings: Settings, releases: Releases) -> str:
    from aegisops.errors import ConfigurationError

    found = [name for name in _classes(settings, releases) if releases.registry.history(name)]
    if len(found) != 1:
        have = ", ".join(found) or "no class"
        raise ConfigurationError(f"{have} has models; say which with --machine-class")
    return found[0]


def _summary(releases: Releases, name: str, registered: Any) -> dict[str, Any]:  # noqa: ANN401
    from aegisops.names import Alias
    from aegisops.releases import bundle_version

    version = bundle_version(registered)
    figures = releases.evidence(name, version).get("figures", {})
    serving = releases.pointer(name, Alias.PRODUCTION)
    return {
        "machine_class": name,
        "version": version,
        "number": registered.version,
        "aliases": sorted(registered.aliases),
        "is_served": serving is not None and serving.digest == registered.digest,
        "registered_at": registered.registered_at,
        "pr_auc": figures.get("candidate", {}).get("pr_auc"),
        "digest": registered.digest,
        "mlflow_run": registered.run_id,
    }


def _say(decision: Decision, text: str, *, json: bool) -> None:
    from dataclasses import asdict

    if json:
        row = asdict(decision)
        row.pop("evidence")
        output.as_json(row)
    else:
        output.say(f"{text}: {decision.reason}" if decision.reason else text)


def _open(report: Path) -> None:
    from aegisops.errors import ConfigurationError

    if not report.exists():
        raise ConfigurationError(f"{report}: no report; materialise ml/validation to make it")
    typer.launch(str(report))


def _login() -> str:
    with contextlib.suppress(OSError, KeyError):
        return getpass.getuser()
    return "cli"


def _age(since: datetime) -> str:
    from datetime import UTC, datetime

    seconds = (datetime.now(UTC) - since).total_seconds()
    for unit, size in (("d", _DAY), ("h", _HOUR)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds) / _MINUTE:.0f} min"
