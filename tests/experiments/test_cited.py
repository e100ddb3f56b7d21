"""The figure of experiments/cited.py."""

import importlib.util
import sys
from pathlib import Path

import pytest
from helpers import results_row, results_table


@pytest.fixture
def script(monkeypatch):
    folder = Path(__file__).parents[2] / "experiments"
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location("cited", folder / "cited.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "cited", module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_each_accuracy_belongs_to_one_treatment(script, tmp_path):
    """Before and after batch norm, and compensated before it; the softmax is a score of its own; seeds are averaged."""
    known = {"accuracy_before_recovery": 0.3, "accuracy": 0.6, "recovery": "batchnorm", "scorer": "perturbation", "options": None}
    rows = [results_row(**known, calibration_seed=seed, decomposition=unit) for seed in (0, 1) for unit in ("svd", "filters")]
    rows.append(results_row(**known | {"accuracy": 0.8}, calibration_seed=2))
    rows.append(results_row(**known | {"options": "estimator.output=hellinger"}))
    rows.append(results_row(**known | {"accuracy_before_recovery": 0.7, "compensation": "least_squares", "recovery": "none"}))
    table = results_table(*rows)
    found = script.treated(table).set_index(["decomposition", "score", "treatment"])
    nothing, again, compensated = script.TREATMENTS
    assert found.loc[("svd", "perturbation", nothing)]["mean"].item() == pytest.approx(0.3)
    assert found.loc[("svd", "perturbation", again)]["mean"].item() == pytest.approx((0.6 + 0.6 + 0.8) / 3)
    assert found.loc[("svd", "perturbation", again)]["size"].item() == 3
    assert found.loc[("svd", "perturbation", compensated)]["mean"].item() == pytest.approx(0.7)
    assert found.loc[("svd", script.SOFTMAX, again)]["size"].item() == 1
    assert found.loc[("filters", "perturbation", again)]["size"].item() == 2 and len(found) == 7
    assert all(path.exists() for path in script.draw(table, tmp_path / "figure.png"))


@pytest.mark.parametrize("wanted", [[10, 10, 10], [0, 50, 99], [98, 99, 99], [0, 0, 99]])
def test_names_stand_apart(script, wanted):
    found = script.spaced(wanted, 8, 2, 98)
    assert all(b - a >= 8 - 1e-9 for a, b in zip(found, found[1:])) and min(found) >= 2 and max(found) <= 98
