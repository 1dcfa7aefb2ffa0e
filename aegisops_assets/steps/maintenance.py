"""Keeps the lake's tables fast and small while writers go on: files, order, log, old versions.

Only tables that grow by small commits are compacted; silver and gold are written in large parts.
A writer that was faster wins: the table is left for the next time. Versions that a model was
trained on are kept, so that its training set can be rebuilt for an audit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl
from deltalake.exceptions import DeltaError

from aegisops.errors import Conflict
from aegisops.lake import Partition
from aegisops.schemas.tables import (
    EVENTS,
    FEATURES,
    FEEDBACK,
    LABELS,
    TABLES,
    TILES,
    TRAINING_SET,
    Table,
)
from aegisops_assets.steps.changes import processed_version
from aegisops_assets.steps.platform import Platform

KEEP = timedelta(days=7)
"""Old versions stay readable this long: `aegisops sql --as-of`, running queries, a second look."""
MANY_FILES = 8
"""Small files of a partition from which merging pays."""
SMALL = 32 * 1024 * 1024
"""Bytes below which a file counts as small."""
REBUILT_FROM = (FEATURES, LABELS, TRAINING_SET, EVENTS, FEEDBACK)
"""Tables whose versions a training set is made from. Readings are not among them: the vectors are
in gold/features, and bronze only grows."""


@dataclass(slots=True)
class Maintained:
    """What was done to one table."""

    table: str
    files: int = 0
    """Live files afterwards."""
    merged: int = 0
    """Small files that were replaced by fewer large ones."""
    clustered: int = 0
    """Finished days whose files are now in order."""
    deleted: int = 0
    """Files of versions that nobody needs any more."""
    kept_versions: int = 0
    """Versions kept because a model was trained on them, or a step still compares with them."""
    note: str = ""
    """Why something was left for the next time."""


def maintain(platform: Platform, *, today: date, vacuum: bool = True) -> list[Maintained]:
    """Every table in turn; without `vacuum` only the quick part, merging files."""
    lake = platform.lake
    pinned = needed_versions(platform)
    done = []
    for table in TABLES.values():
        if not lake.exists(table):
            continue
        said = Maintained(table.name)
        try:
            if table.is_append_only or table.name.startswith("ops/"):
                said.merged = sum(lake.compact(table, p) for p in _crowded(platform, table))
                if vacuum:
                    said.clustered = _cluster(platform, table, today)
            if vacuum:
                lake.checkpoint(table)
                versions = _readable(platform, table, pinned.get(table.name, set()))
                said.kept_versions = len(versions)
                said.deleted = len(lake.vacuum(table, KEEP, versions))
        except Conflict as conflict:
            said.note = str(conflict)
        said.files = len(lake.open(table).file_uris())
        done.append(said)
    return done


def needed_versions(platform: Platform) -> dict[str, set[int]]:
    """Table → versions that a bundle was trained on, or that a step has processed up to."""
    needed: dict[str, set[int]] = {}
    kept = {table.name for table in REBUILT_FROM}
    for manifest in platform.settings.bundles_dir.glob("*/*/bundle/manifest.json"):
        try:
            versions = json.loads(manifest.read_text())["data_versions"]
        except (ValueError, KeyError):
            continue  # an altered bundle names nothing that could be believed
        for name, version in versions.items():
            if name in kept:
                needed.setdefault(name, set()).add(int(version))
    # The only source that is compared by its rows and not by the log alone.
    if platform.lake.exists(TILES):
        version = processed_version(platform.lake.open(TILES), EVENTS)
        needed.setdefault(EVENTS.name, set()).update({version} - {-1})
    return needed


def _readable(platform: Platform, table: Table, versions: set[int]) -> set[int]:
    """Those of the versions that the log still knows; vacuum refuses others."""
    known = set()
    for version in versions:
        try:
            platform.lake.open(table, version)
        except DeltaError:
            continue
        known.add(version)
    return known


def _crowded(platform: Platform, table: Table) -> Iterator[Partition]:
    """Partitions with many small files."""
    for partition, sizes in _partitions(platform, table):
        if sum(size < SMALL for size in sizes) >= MANY_FILES:
            yield partition


def _cluster(platform: Platform, table: Table, today: date) -> int:
    """Order the finished days that still consist of several small files."""
    if not table.cluster_by:
        return 0
    done = 0
    for partition, sizes in _partitions(platform, table):
        is_finished = dict(partition).get("date", "") < today.isoformat()
        if is_finished and len(sizes) > 1 and max(sizes) < 2 * SMALL:
            platform.lake.cluster(table, partition)
            done += 1
    return done


def _partitions(platform: Platform, table: Table) -> list[tuple[Partition, list[int]]]:
    """Each partition with the bytes of its files."""
    added = pl.DataFrame(platform.lake.open(table).get_add_actions(flatten=True))
    if added.is_empty():
        return []
    columns = [f"partition.{name}" for name in table.partition_by]
    if not columns:
        return [((), added["size_bytes"].to_list())]
    grouped = added.group_by(columns).agg("size_bytes").sort(columns)
    return [
        (
            tuple((name, str(value)) for name, value in zip(table.partition_by, row, strict=False)),
            row[-1],
        )
        for row in grouped.iter_rows()
    ]
