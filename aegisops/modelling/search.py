"""Which recipe ranks machines best that it has not seen? A small grid, within a budget. Pure.

Only the folds `train` and `calibrate` are looked at. The budget counts trials and not seconds, so
that the same rows give the same recipe on any computer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from aegisops.machines import MachineClass
from aegisops.modelling import metrics
from aegisops.modelling.fitting import Fitter, Recipe
from aegisops.modelling.rows import matrix, outcomes, total_inputs
from aegisops.modelling.split import CALIBRATE, TRAIN, machine_groups
from aegisops.modelling.training import CROSS_FIT_GROUPS, Progress

BUDGET = 4
MOST_ROWS = 12_000
"""Rows a trial looks at. Rows of neighbouring steps are near copies: every k-th one is used."""
CLEAR_GAIN = 0.01
"""A trial must rank better than the first by this much; less is chance."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One recipe and what it was worth."""

    recipe: Recipe
    pr_auc: float
    """On machines that the trial's boosters had not seen."""


def grid(machine_class: MachineClass, start: Recipe) -> list[Recipe]:
    """Recipes in the order they are tried.

    Totals (a cycle counter since it was new) tell machines apart like a name: with tens of
    machines a tree learns who failed. So the first recipe does without them, and they come in only
    if they help on other machines.
    """
    totals = total_inputs(machine_class)
    forests = {"max_depth": 3, "columns": 0.3, "parallel_trees": 8, "learning_rate": 0.25}
    slow = {"learning_rate": start.learning_rate / 2, "rounds": 2 * start.rounds}
    changes: list[Any] = [{}, slow, {**forests, "rounds": 25}]
    changes += [{"ignored": ()}] if totals else []
    changes += [{"max_depth": 3}, {"max_depth": 4, "min_child_weight": 20.0}]
    start = replace(start, ignored=totals)
    return [replace(start, **change) for change in changes]


def search(
    rows: pl.DataFrame,
    machine_class: MachineClass,
    *,
    inputs: Sequence[str] | None = None,
    start: Recipe | None = None,
    budget: int = BUDGET,
    progress: Progress = lambda *_: None,
) -> list[Trial]:
    """At most `budget` trials, the chosen one first.

    With fewer than two groups of machines that fail nothing can be compared: only `start`.
    """
    start = start or Recipe()
    rows = rows.filter(pl.col("fold").is_in([TRAIN, CALIBRATE])).sort("machine_id", "ts")
    if rows.height > MOST_ROWS:
        rows = rows.gather_every(-(-rows.height // MOST_ROWS))
    names = tuple(inputs or machine_class.vector)
    data, y = matrix(rows, machine_class, names), outcomes(rows)
    groups = machine_groups(rows["machine_id"], CROSS_FIT_GROUPS, start.seed)
    if len(np.unique(groups[y == 1])) < 2:  # noqa: PLR2004
        return [Trial(start, metrics.NAN)]
    trials = []
    recipes = grid(machine_class, start)[:budget]
    for i, recipe in enumerate(recipes):
        progress(f"recipe {i + 1} of {len(recipes)}", i / len(recipes))
        fitter = Fitter(data, names, replace(recipe, threads=1))
        (unseen,) = fitter.unseen_margins(y, groups, [recipe.rounds])
        trials.append(Trial(recipe, metrics.average_precision(y, unseen)))
    best = max(trials, key=lambda trial: trial.pr_auc)
    chosen = best if best.pr_auc >= trials[0].pr_auc + CLEAR_GAIN else trials[0]
    return [chosen, *(trial for trial in trials if trial is not chosen)]
