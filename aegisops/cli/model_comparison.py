"""`aegisops models compare`: production and shadow on the same served vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aegisops.cli import output

if TYPE_CHECKING:
    from aegisops.releases import Releases
    from aegisops.settings import Settings
    from aegisops.shadow_comparison import Comparison


def compare(settings: Settings, releases: Releases, name: str) -> Comparison:
    """The comparison of one class.

    Raises `ConfigurationError` when the class has no production model or no shadow.
    """
    from aegisops.errors import ConfigurationError
    from aegisops.machines import load_classes
    from aegisops.names import Alias
    from aegisops.shadow_comparison import compare_models

    declared = load_classes(settings.classes_dir).get(name)
    if declared is None:
        raise ConfigurationError(f"{name}: no such class; put its .toml into AEGIS_CLASSES_DIR")
    production, shadow = (releases.pointer(name, a) for a in (Alias.PRODUCTION, Alias.SHADOW))
    if production is None:
        raise ConfigurationError(f"{name} has no model in production; promote one first")
    if shadow is None:
        raise ConfigurationError(
            f"{name} has no shadow; begin one with `aegisops models shadow VERSION`"
        )
    return compare_models(releases, declared, production, shadow)


def show(name: str, found: Comparison) -> None:
    """Figures with their intervals, and what follows from them."""
    cells = [
        ("served vectors scored by both", f"{found.pairs:,}", ""),
        ("machines", f"{found.machines:,}", ""),
        (
            "mean probability, shadow - production",
            _signed(found.mean_difference),
            _interval(found.mean_difference_low, found.mean_difference_high),
        ),
        ("rank correlation", _plain(found.rank_correlation), ""),
        ("elevated, production", _share(found.production_elevated), ""),
        ("elevated, shadow", _share(found.shadow_elevated), ""),
        ("with a known outcome", f"{found.known_outcomes:,}", ""),
        ("of those before a failure", f"{found.failures_ahead:,}", ""),
        ("machines that failed", f"{found.failed_machines:,}", ""),
        (
            "Brier gain of the shadow",
            _signed(found.brier_gain),
            _interval(found.brier_gain_low, found.brier_gain_high),
        ),
        (
            "PR-AUC gain of the shadow",
            _signed(found.pr_auc_gain),
            _interval(found.pr_auc_gain_low, found.pr_auc_gain_high),
        ),
    ]
    title = f"{name}: production {found.production}, shadow {found.shadow}"
    output.results.print(output.table(title, ("Figure", "Value", "95 % over machines"), cells))
    for objection in found.objections:
        output.say(f"against the shadow: {objection}")
    if not found.is_enough:
        output.say(f"not enough to decide: {found.told}")
    elif not found.objections:
        output.say("nothing speaks against the shadow")


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"
