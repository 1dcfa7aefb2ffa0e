"""The parity report as an asset: were the served vectors the ones the lake gives?"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from aegisops import names
from aegisops.schemas.tables import EVENTS, PREDICTIONS, READINGS, WAVEFORMS
from aegisops_assets.keys import OWNERS, key
from aegisops_assets.steps.platform import Platform

CHECK = "no_skew"


@dg.asset(
    key=key(names.ML_PARITY_REPORT),
    deps=[key(table.name) for table in (PREDICTIONS, READINGS, WAVEFORMS, EVENTS)],
    group_name="ml",
    kinds={"polars"},
    owners=OWNERS,
    description="Vectors behind the last day's answers, computed again from bronze: a sample per "
    "class, feature by feature.",
    check_specs=[
        dg.AssetCheckSpec(
            CHECK,
            asset=key(names.ML_PARITY_REPORT),
            description="every compared vector is the one the lake gives, to 1e-6",
        )
    ],
    code_version="1",
)
def parity_report(
    platform: dg.ResourceParam[Platform],
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Recompute and compare; skew between online and offline is an error, whoever made it."""
    from aegisops_assets.steps import parity

    made = parity.report(platform, now=datetime.now(UTC))
    yield dg.MaterializeResult(
        metadata={
            "compared": sum(m.compared for m in made),
            "skewed": sum(m.skewed for m in made),
            **{
                m.machine_class: dg.MetadataValue.json(
                    {
                        "compared": m.compared,
                        "skewed": m.skewed,
                        "left_out": m.left_out,
                        "features": m.features,
                        "examples": list(m.examples),
                    }
                )
                for m in made
            },
        }
    )
    wrong = {m.machine_class: m for m in made if m.skewed}
    yield dg.AssetCheckResult(
        check_name=CHECK,
        passed=not wrong,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(
            f"{name}: {m.skewed} of {m.compared} vectors differ in {', '.join(m.features)}"
            for name, m in wrong.items()
        )
        or f"{sum(m.compared for m in made)} vectors are as the lake gives them",
    )


parity_job = dg.define_asset_job(
    "parity", [parity_report], description="served vectors against the lake → report and error"
)

parity_nightly = dg.ScheduleDefinition(
    name="parity_nightly",
    job=parity_job,
    cron_schedule="0 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
