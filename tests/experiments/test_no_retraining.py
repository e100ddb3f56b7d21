"""The table of experiments/no_retraining.py."""

import importlib.util
from pathlib import Path

import pytest
from helpers import results_row, results_table


@pytest.mark.slow
def test_table_without_a_gradient_step():
    """What a method does not read makes no line of its own; what it reads does; both accuracies are lines."""
    path = Path(__file__).parents[2] / "experiments" / "no_retraining.py"
    spec = importlib.util.spec_from_file_location("no_retraining", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    known = {"recovery": "batchnorm", "accuracy": 0.6, "accuracy_before_recovery": 0.5}
    others = [{"options": None}, {"options": "estimator.output=hellinger estimator.temperature=4.0", "scoring_images": 256}]
    rows = [
        results_row(method=name, scorer="energy", **known | other, seed=number)
        for name in ("balf", "pca")
        for number, other in enumerate(others)
    ]
    rows += [
        results_row(method="output_aware", compensation="least_squares", **known | other, seed=number)
        for number, other in enumerate(others)
    ]
    lines = script.summarise(results_table(*rows, results_row(recovery="none")))
    found = {name: part for name, part in lines.groupby("line")}
    for name in ("balf", "pca"):
        assert found[name]["seeds"].tolist() == [2] and found[name]["y"].tolist() == [0.5]
        assert found[f"{name} + batch norm"]["y"].tolist() == [0.6]
    assert sum(name.startswith("output_aware") and not name.endswith("batch norm") for name in found) == 2
