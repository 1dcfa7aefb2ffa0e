"""GET /machine-classes: what the kinds of machines measure, and what counts as normal."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from aegisops.explain import feature_title
from aegisops.machines import MachineClass
from aegisops.machines.model import US_PER_SECOND
from serving.auth import Viewer
from serving.console_contract import MachineClasses
from serving.routes.http import as_json, documented_errors, service_of

router = APIRouter(tags=["machines"])


@router.get(
    "/machine-classes",
    summary="Channels, features, limits and failure modes of each class",
    responses={200: {"model": MachineClasses}, **documented_errors()},
)
async def machine_classes(request: Request, _: Viewer) -> Response:
    """As the class files declare them; the same for every site."""
    return as_json({"classes": [_class(c) for c in service_of(request).classes.values()]})


def _class(declared: MachineClass) -> dict[str, object]:
    return {
        "name": declared.name,
        "title": declared.title,
        "clock": declared.clock.value,
        "feature_set": declared.feature_set,
        "horizon_hours": declared.horizon / declared.hour,
        "stale_after_seconds": declared.stale_after / US_PER_SECOND,
        "channels": [
            {
                "name": name,
                "title": channel.title or name,
                "unit": channel.unit,
                "kind": channel.kind.value,
                "period_seconds": channel.period / US_PER_SECOND,
                "low": channel.limits[0],
                "high": channel.limits[1],
                "baseline": channel.baseline,
            }
            for name, channel in declared.channels.items()
        ],
        "features": [
            {
                "name": spec.name,
                "title": feature_title(declared, spec.name),
                "unit": spec.unit,
                "channel": spec.channel,
                "statistic": spec.statistic.value,
                "window_seconds": None if spec.window is None else spec.window / US_PER_SECOND,
            }
            for spec in declared.features
        ],
        "thresholds": [
            {
                "feature": rule.feature,
                "warning": rule.warning,
                "alarm": rule.alarm,
                "direction": rule.direction,
                "failure_mode": rule.failure_mode,
            }
            for rule in declared.thresholds
        ],
        "failure_modes": [
            {
                "code": code,
                "title": mode.title,
                "action": mode.action,
                "procedure": mode.procedure,
            }
            for code, mode in declared.failure_modes.items()
        ],
    }
