"""`aegisops alarms`: the list, one change at a time, the journal and the figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aegisops.cli import output, runs

if TYPE_CHECKING:
    from aegisops.cli.api import Api

AlarmId = Annotated[str, typer.Argument(help="Id as `list` shows it, or its unique beginning.")]
DataDir = Annotated[Path | None, typer.Option(help="Data folder of the running system.")]
Json = Annotated[bool, typer.Option("--json", help="The API's answer as JSON.")]
Begin = Annotated[str | None, typer.Option("--from", help="UTC time; default: a day ago.")]
End = Annotated[str | None, typer.Option("--to", help="UTC time; default: now.")]

_STYLES = {1: "bold red", 2: "red", 3: "yellow", 4: "cyan"}
_MINUTES = {"s": 1 / 60, "m": 1.0, "h": 60.0, "d": 1_440.0}


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(no_args_is_help=True, help="Alarms of the running system.")
    group.command("list")(list_alarms)
    for command in (ack, shelve, unshelve, journal, kpi):
        group.command()(command)
    app.add_typer(group, name="alarms")


def list_alarms(
    *,
    advisories: Annotated[
        bool, typer.Option("--advisories", help="What may come, instead of what is.")
    ] = False,
    state: Annotated[list[str] | None, typer.Option(help="Only these states.")] = None,
    machine: Annotated[str | None, typer.Option(help="Only this machine.")] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """What is not normal, most urgent first. Exit code 1 when nobody evaluates."""
    answer = _get(
        data_dir,
        "/alarms",
        kind="advisory" if advisories else "alarm",
        state=state or None,
        machine_id=machine,
    )
    if json:
        output.as_json(answer)
    else:
        rows = [_row(alarm) for alarm in answer["alarms"]]
        columns = ("Id", "Prio", "State", "Machine", "Alarm", "Value", "Since", "What to do")
        title = "Advisories" if advisories else "Alarms"
        output.results.print(output.table(title, columns, rows))
        if answer["flood"]["active"]:
            groups = answer["flood"]["groups"]
            output.note(f"[bold red]flood[/] since {answer['flood']['since']}, by cause:")
            for group in groups:
                output.note(
                    f"  {group['count']} × {group['cause']} in {group['site']}/{group['area']}, "
                    f"first out {group['first_out'][:8]}"
                )
    if not answer["engine"]["is_active"]:
        output.fail("no alarm engine is active: nobody evaluates, the list may be out of date")
        raise typer.Exit(1)


def ack(
    alarm: AlarmId,
    *,
    comment: Annotated[str, typer.Option(help="What you saw or do.")] = "",
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Acknowledge one alarm."""
    _change(data_dir, alarm, "acknowledge", {"comment": comment}, json=json)


def shelve(
    alarm: AlarmId,
    *,
    reason: Annotated[str, typer.Option(help="Why; it goes into the journal.")],
    time: Annotated[str, typer.Option("--for", help="How long, such as 30m or 2h.")] = "1h",
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Set one alarm aside for a while; it comes back by itself."""
    body = {"reason": reason, "minutes": _minutes(time)}
    _change(data_dir, alarm, "shelve", body, json=json)


def unshelve(alarm: AlarmId, *, data_dir: DataDir = None, json: Json = False) -> None:
    """Take one alarm from the shelf before its time."""
    _change(data_dir, alarm, "unshelve", {}, json=json)


def journal(
    *,
    machine: Annotated[str | None, typer.Option(help="Only this machine.")] = None,
    begin: Begin = None,
    end: End = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Newest rows to show.")] = 50,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Transitions, newest first, as the lake has them."""
    answer = _get(data_dir, "/alarms/journal", machine_id=machine, limit=limit, **_span(begin, end))
    if json:
        output.as_json(answer)
        return
    rows = [
        (
            r["changed_at"],
            r["machine_id"] or "–",
            r["definition_id"],
            r["transition"],
            r["state"],
            r["subject"],
            r["comment"],
        )
        for r in answer["records"]
    ]
    columns = ("At", "Machine", "Alarm", "Transition", "State", "By", "Comment")
    output.results.print(output.table("Journal", columns, rows))


def kpi(
    *,
    begin: Begin = None,
    end: End = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Figures of the alarm system, from the journal alone (ISA-18.2)."""
    answer = _get(data_dir, "/alarms/kpi", **_span(begin, end))
    if json:
        output.as_json(answer)
        return
    median = answer["median_seconds_to_acknowledge"]
    rows = [
        ("span", f"{answer['begin']} to {answer['end']}"),
        ("alarms shown", str(answer["annunciated"])),
        ("per hour", f"{answer['per_hour']:.2f}"),
        ("most in 10 min", str(answer["peak_per_10_min"])),
        ("10-min periods above 10", f"{answer['flood_share']:.1%}"),
        ("share of the ten most frequent", f"{answer['top_10_share']:.0%}"),
        ("standing", str(answer["standing"])),
        ("stale (over a day)", str(len(answer["stale"]))),
        ("chattering", str(len(answer["chattering"]))),
        ("median time to acknowledge", "–" if median is None else f"{median:.0f} s"),
    ]
    output.results.print(output.table("Alarm figures", ("Figure", "Value"), rows))
    for row in answer["most_frequent"]:
        where = row["machine_id"] or "AegisOps"
        output.say(f"{row['count']:>5} × {row['definition_id']} on {where}")


def _get(data_dir: Path | None, path: str, **query: object) -> Any:  # noqa: ANN401 - JSON
    from aegisops.cli.api import Api

    with Api(runs.settings(data_dir), "viewer") as api:
        return api.get(path, **query)


def _change(
    data_dir: Path | None, beginning: str, what: str, body: dict[str, Any], *, json: bool
) -> None:
    from aegisops.cli.api import Api

    with Api(runs.settings(data_dir), "operator") as api:
        alarm = _find(api, beginning)
        body = {"version": alarm["version"], **body}
        answer = api.post(f"/alarms/{alarm['alarm_id']}/{what}", body)
    if json:
        output.as_json(answer)
    else:
        where = answer["machine_id"] or "AegisOps"
        output.say(f"{answer['title']} on {where} is now {answer['state']}")


def _find(api: Api, beginning: str) -> dict[str, Any]:
    """The one standing alarm whose id begins so."""
    from aegisops.errors import Permanent

    listed = [a for kind in ("alarm", "advisory") for a in api.get("/alarms", kind=kind)["alarms"]]
    found = [a for a in listed if a["alarm_id"].startswith(beginning)]
    if len(found) != 1:
        many = f"{len(found)} alarms begin" if found else "no alarm that stands begins"
        raise Permanent(f"{many} with {beginning!r}; list them: aegisops alarms list")
    return dict(found[0])


def _row(alarm: dict[str, Any]) -> tuple[str, ...]:
    unit = "" if alarm["unit"] == "1" else f" {alarm['unit']}"
    value = "–"
    if alarm["value"] is not None:
        limit = "" if alarm["setpoint"] is None else f" (limit {alarm['setpoint']:.4g})"
        value = f"{alarm['value']:.4g}{unit}{limit}"
    style = _STYLES[alarm["priority"]]
    first = " (first out)" if alarm["first_out"] else ""
    procedure = f" [{alarm['procedure']}]" if alarm["procedure"] else ""
    detail = f": {alarm['detail']}" if alarm["detail"] else ""
    return (
        alarm["alarm_id"][:8],
        f"[{style}]{alarm['priority']}[/]",
        alarm["state"],
        alarm["machine_id"] or "AegisOps",
        _plain(f"{alarm['title']}{first}{detail}"),
        _plain(value),
        str(alarm["raised_at"] or "–")[:19],
        _plain(f"{alarm['response']}{procedure}"),
    )


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _span(begin: str | None, end: str | None) -> dict[str, str]:
    span = {"from": (begin, "--from"), "to": (end, "--to")}
    return {
        name: output.utc_time(text, option).isoformat()
        for name, (text, option) in span.items()
        if text is not None
    }


def _minutes(text: str) -> float:
    from aegisops.errors import ConfigurationError

    try:
        return float(text[:-1]) * _MINUTES[text[-1:]]
    except (ValueError, KeyError):
        raise ConfigurationError(f"--for {text}: write 30m, 2h or 90s") from None
