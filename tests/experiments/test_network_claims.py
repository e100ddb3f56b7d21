"""The rules by which the paper's claims about figure 3 are checked, on tables made by hand."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))  # the scripts there are not part of the package

rules = importlib.import_module("network_claims")

SHARES = (0.9, 0.95, 0.97)


def case(curves, order=()):
    """``curves``: by blocking and scorer the accuracies at SHARES, and how many layers are empty there."""
    rows = [
        {"network": "a", "calibration_seed": 0, "blocking": blocking, "scorer": scorer, "compensation": "none", "sparsity": share,
         "accuracy": accuracy, "accuracy_before_recovery": 10.0, "empty": empty}
        for (blocking, scorer), (accuracies, empties) in curves.items()
        for share, accuracy, empty in zip(SHARES, accuracies, empties)
    ]  # fmt: skip
    return rules.Case(pd.DataFrame(rows), pd.DataFrame(order, columns=["blocking", "perturbation_with", "over_all"]))


def test_a_layer_is_empty_earlier_and_the_other_still_learns():
    early = {("none", "magnitude"): ((50, 10, 10), (0, 1, 2)), ("none", "perturbation"): ((60, 40, 10), (0, 0, 1))}
    assert [(round(value), held) for _, value, held in rules.collapse(case(early))] == [(2, True)]
    at_chance = early | {("none", "perturbation"): ((60, 10, 10), (0, 0, 1))}
    assert [held for *_, held in rules.collapse(case(at_chance))] == [False]


def test_what_was_not_run_proves_nothing():
    alone = case({("none", "perturbation"): ((60, 40, 10), (0, 0, 1))})
    assert not [*rules.collapse(alone), *rules.magnitude(alone), *rules.blocks(alone), *rules.variance(alone), *rules.spearman(alone)]


def test_blocks_are_compared_where_either_is_above_chance():
    table = case({("none", "perturbation"): ((60, 40, 10), (0, 0, 1)), ("alds", "perturbation"): ((70, 42, 10.5), (0, 0, 0))})
    assert [(value, held) for _, value, held in rules.blocks(table)] == [(2, True)], "at 95 % alone"


def test_correlations_are_held_against_their_bounds():
    table = case(
        {("none", "perturbation"): ((60, 40, 10), (0, 0, 1)), ("none", "variance"): ((60.5, 42, 10), (0, 0, 1))},
        [("none", "relative_error", 0.83), ("none", "variance", 0.99)],
    )
    assert [held for *_, held in rules.spearman(table)] == [True]
    assert [(round(value, 2), held) for _, value, held in rules.variance(table)] == [(0.99, True), (2, False)]


@pytest.mark.parametrize("claim", rules.CLAIMS)
def test_each_claim_states_its_rule(claim):
    name, rule = rules.stated(claim)
    assert name and rule and not rule.endswith(".") and "\n" not in name + rule


def test_a_verdict_counts():
    said = [rules.verdict(held, 3) for held in (3, 1, 0)]
    assert said == ["reproduced, 3 of 3", "in part, 1 of 3", "not reproduced, 0 of 3"]
