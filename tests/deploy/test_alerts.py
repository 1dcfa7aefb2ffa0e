"""The alerts: their rules hold, they speak of metrics that exist, and each has a runbook entry."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "aegisops.rules.yml"
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]
PROMTOOL = shutil.which("promtool")


def known_metrics():
    from serving.alarm_engine.metrics import EngineMetrics
    from serving.metrics import Metrics
    from streaming.feature_metrics import FeatureMetrics
    from streaming.gateway_metrics import GatewayMetrics
    from streaming.lake_metrics import LakeMetrics

    engine = CollectorRegistry()
    EngineMetrics(engine)
    made = (LakeMetrics(), FeatureMetrics(), GatewayMetrics(), Metrics())
    registries = [engine, *(metrics.registry for metrics in made)]
    names = set()
    for registry in registries:
        for family in registry.collect():
            names.add(family.name)
            names |= {f"{family.name}_{end}" for end in ("total", "bucket", "count", "sum")}
    return names


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
def test_the_rules_do_what_their_own_tests_say():
    tests = RULES.with_name("aegisops.rules.test.yml")
    done = subprocess.run(
        [PROMTOOL, "test", "rules", str(tests)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_rule_speaks_of_a_metric_that_does_not_exist():
    used = {
        name
        for group in GROUPS
        for rule in group["rules"]
        for name in re.findall(r"\baegis_[a-z_]+", rule["expr"])
    }
    assert used - known_metrics() == set()


@pytest.mark.parametrize("alert", ALERTS, ids=lambda a: a["alert"])
def test_every_alert_says_how_bad_it_is_and_where_to_read_on(alert):
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    page, anchor = alert["annotations"]["runbook"].split("#")
    headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor == alert["alert"].lower()
    assert alert["alert"] in headings


def test_no_alert_waits_longer_than_a_minute():
    assert {alert.get("for", "0s") for alert in ALERTS} <= {"0s", "15s", "30s", "1m"}
