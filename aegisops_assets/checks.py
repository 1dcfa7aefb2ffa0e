"""Asset checks made from the table declarations. None is hand-written; the rules are in `steps`.

A layer's row rules are blocking: a broken one stops the run before the next layer reads the table.
Freshness and quality share warn. Each check looks at what is new since the version it last passed.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from aegisops.schemas.tables import Table
from aegisops_assets.keys import key
from aegisops_assets.steps.platform import Platform

if TYPE_CHECKING:
    from aegisops_assets.steps.examine import Finding

VERSION = "delta_version"
"""Metadata of a check: the table's version it looked at."""
ABOUT = {
    "schema": "the stored schema is the declared one",
    "keys_unique": "no two rows share the declared keys",
    "no_nulls": "no null in a column declared without",
    "ranges": "every value lies in its declared range",
    "fresh": "rows arrived within {0.fresh_within}",
    "quality_share": "at most {0.worst_bad_share:.0%} of a channel's values are not good",
}


def names(table: Table) -> list[str]:
    """Checks of a table."""
    watched = {"fresh": table.fresh_within, "quality_share": table.worst_bad_share}
    return [name for name in ABOUT if name not in watched or watched[name] is not None]


def specs(table: Table, *, blocking: bool = True) -> list[dg.AssetCheckSpec]:
    """Check specs of a table's asset."""
    return [
        dg.AssetCheckSpec(
            name,
            asset=key(table.name),
            blocking=blocking and name not in {"fresh", "quality_share"},
            description=ABOUT[name].format(table),
        )
        for name in names(table)
    ]


def run(
    platform: Platform, table: Table, instance: dg.DagsterInstance
) -> Iterator[dg.AssetCheckResult]:
    """Check what is new in the table since every check last passed."""
    from aegisops_assets.steps import examine

    since = min(_passed_version(instance, table, name) for name in examine.TRUSTED)
    version, findings = examine.examine(platform.lake, table, since)
    for finding in findings:
        yield _result(table, finding, since, version)


def bronze_checks(tables: Sequence[Table]) -> dg.AssetChecksDefinition:
    """One step that checks tables the streams write; nothing downstream waits for it."""

    @dg.multi_asset_check(
        name="bronze_checks",
        specs=[spec for table in tables for spec in specs(table, blocking=False)],
        description="Declared rules of the bronze tables, on what arrived since the last time.",
    )
    def check(
        context: dg.AssetCheckExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.AssetCheckResult]:
        for table in tables:
            yield from run(platform, table, context.instance)

    return check


def _passed_version(instance: dg.DagsterInstance, table: Table, name: str) -> int:
    """Version of the table up to which the check is known to have passed; -1 = none."""
    history = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(key(table.name), name), limit=20
    )
    for record in history:
        # The newest one is this run's own, planned and without a result yet.
        evaluation = record.evaluation
        if isinstance(evaluation, dg.AssetCheckEvaluation) and evaluation.passed:
            version = evaluation.metadata.get(VERSION)
            return int(version.value or 0) if isinstance(version, dg.IntMetadataValue) else -1
    return -1


def _result(table: Table, finding: "Finding", since: int, version: int) -> dg.AssetCheckResult:
    warns = finding.rule in {"fresh", "quality_share"}
    return dg.AssetCheckResult(
        check_name=finding.rule,
        asset_key=key(table.name),
        passed=finding.passed,
        severity=dg.AssetCheckSeverity.WARN if warns else dg.AssetCheckSeverity.ERROR,
        description=ABOUT[finding.rule].format(table)
        if finding.passed
        else f"violated by {dict(finding.violations)}",
        metadata={
            VERSION: version,
            "since_version": since,
            "violations": dg.MetadataValue.json(dict(finding.violations)),
            **finding.looked_at,
        },
    )
