"""Claim: on the Azure PdM rows the model beats the published random forest (F1 .54, PR-AUC .41).

Runs `aegisops evaluate` (Kafka → lake writer → Delta → assets → model) on the tables in
AEGIS_SHARED_DATA/azure_pdm, which are not part of this repository.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PUBLISHED_F1, PUBLISHED_PR_AUC = 0.54, 0.41


def main() -> None:
    home = os.environ.get("AEGIS_SHARED_DATA")
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    data = (Path(home) if home else default) / "azure_pdm"
    if not data.is_dir():
        sys.exit(f"{data} is absent; point AEGIS_SHARED_DATA at the folder that holds azure_pdm")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        started = time.monotonic()
        command = ["-m", "aegisops.cli", "evaluate", data, "--machine-class", "azure_pdm"]
        subprocess.run(
            [sys.executable, *command, "--split-at", "2015-03-01T00:00", "--json", out],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        took = time.monotonic() - started
        found = json.loads(out.read_text())
    figures = {}
    for horizon, entry in found["horizons"].items():
        for choice in ("with_errors", "without_errors"):
            figures[f"{horizon}_{choice}"] = headline(entry[choice])
    published = {
        choice: headline(entry)
        for choice, entry in found["published_protocol"].items()
        if isinstance(entry, dict) and "any" in entry
    }
    ours = published["with_errors"]
    met = ours["f1"] > PUBLISHED_F1 and ours["pr_auc"] > PUBLISHED_PR_AUC
    counts = {k: found[k] for k in ("readings_in", "readings_in_delta", "duplicates")}
    print(
        json.dumps(
            {
                **counts,
                "seconds": round(took),
                **figures,
                "published_protocol": published,
                "met": met,
            }
        )
    )
    sys.exit(not met)


def headline(entry: dict) -> dict:
    figures, wanted = entry["any"], ("pr_auc", "roc_auc", "f1", "precision", "recall", "brier")
    result = {k: figures[k] for k in (*wanted, "recall_at_budget", "median_lead_time_h")}
    result["pr_auc_interval"] = figures["intervals"]["pr_auc"]
    result["baselines_pr_auc"] = {
        name: baseline["pr_auc"] for name, baseline in entry.get("baselines", {}).items()
    }
    return result


if __name__ == "__main__":
    main()
