"""Tiles and features of a span made again from bronze: `python -m aegisops_assets.backfill`.

The steps of the scheduled build, without Dagster, over the days of a span. Each stretch of days is
replaced in commits of its own, so repeating it changes nothing; what is done is kept in a file, so
that a run that was broken off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from aegisops.errors import AegisError, ConfigurationError
from aegisops.settings import Settings
from aegisops_assets.steps import features, tiles
from aegisops_assets.steps.platform import Platform

DAYS_AT_ONCE = 7
"""A stretch: what a broken-off run does again at most. The steps bound memory inside it."""
_DAY = timedelta(days=1)
_TILES_SHARE = 0.7

Tell = Callable[[float, str], None]
"""(share done, what is being done)."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a backfill wrote."""

    first: date
    last: date
    days: int
    """Days that hold readings."""
    tiles: int
    features: int
    resumed_at: date
    """First day of this run; `first` unless an earlier run was broken off."""


def rebuild(
    platform: Platform,
    first: date,
    last: date,
    *,
    state: Path,
    anew: bool = False,
    tell: Tell = lambda *_: None,
) -> Rebuilt:
    """Make silver/tiles and gold/features of the days `first` to `last` (both included) again.

    Features after the span are written again too, up to their newest: lifetime statistics of a
    machine carry every correction forward.

    Args:
        platform: where the tables are, and the engine that computes.
        first: UTC day.
        last: UTC day.
        state: folder that remembers what a broken-off run has done.
        anew: forget that.
        tell: called after each stretch.
    """
    if last < first:
        raise ConfigurationError(f"the span ends on {last}, before it begins on {first}")
    memory = state / f"{first}_{last}.json"
    if anew:
        memory.unlink(missing_ok=True)
    done: dict[str, Any] = json.loads(memory.read_text()) if memory.exists() else {}
    begin = resumed_at = date.fromisoformat(done.get("next", str(first)))
    days, rows = done.get("days", 0), done.get("tiles", 0)
    whole = (last - first).days + 1
    while begin <= last:
        end = min(begin + (DAYS_AT_ONCE - 1) * _DAY, last)
        tell(_TILES_SHARE * (begin - first).days / whole, f"tiles {begin} to {end}")
        made = tiles.build(platform, days=(begin, end))
        days, rows, begin = days + len(made.days), rows + made.rows, end + _DAY
        _remember(memory, {"next": str(begin), "days": days, "tiles": rows})
    tell(_TILES_SHARE, f"features from {first} on")
    share = 1 - _TILES_SHARE
    written = features.build(
        platform,
        days=(first, last),
        progress=lambda part: tell(_TILES_SHARE + share * part, f"features from {first} on"),
    )
    memory.unlink(missing_ok=True)
    return Rebuilt(first, last, days, rows, written.rows, min(resumed_at, last))


def _remember(path: Path, done: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".half")
    half.write_text(json.dumps(done))
    half.replace(path)


def main(arguments: list[str] | None = None) -> int:
    """Rebuild; progress as JSON lines on stdout, the result as the last of them."""
    parser = argparse.ArgumentParser(prog="python -m aegisops_assets.backfill")
    parser.add_argument("--from", dest="first", type=date.fromisoformat, required=True)
    parser.add_argument("--to", dest="last", type=date.fromisoformat, required=True)
    parser.add_argument("--anew", action="store_true")
    options = parser.parse_args(arguments)
    settings = Settings()

    def tell(share: float, what: str) -> None:
        sys.stdout.write(json.dumps({"share": round(share, 4), "what": what}) + "\n")
        sys.stdout.flush()

    try:
        made = rebuild(
            Platform.of(settings),
            options.first,
            options.last,
            state=settings.data_dir.absolute() / "backfill",
            anew=options.anew,
            tell=tell,
        )
    except AegisError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(asdict(made), default=str) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
