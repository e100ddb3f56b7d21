"""The figure of the cited scores."""

import pytest
from helpers import results_row, results_table

from lrp.figure import cited


def test_each_accuracy_belongs_to_one_treatment(tmp_path):
    """Before and after batch norm, and compensated before it; the softmax is a score of its own; seeds are averaged."""
    known = {"accuracy_before_recovery": 0.3, "accuracy": 0.6, "recovery": "batchnorm", "scorer": "perturbation", "options": None}
    rows = [results_row(**known, calibration_seed=seed, decomposition=unit) for seed in (0, 1) for unit in ("svd", "filters")]
    rows.append(results_row(**known | {"accuracy": 0.8}, calibration_seed=2))
    rows.append(results_row(**known | {"options": "estimator.output=hellinger"}))
    rows.append(results_row(**known | {"accuracy_before_recovery": 0.7, "compensation": "least_squares", "recovery": "none"}))
    table = results_table(*rows)
    found = cited.treated(table).set_index(["decomposition", "score", "treatment"])
    nothing, again, compensated = cited.TREATMENTS
    assert found.loc[("svd", "perturbation", nothing)]["mean"].item() == pytest.approx(0.3)
    assert found.loc[("svd", "perturbation", again)]["mean"].item() == pytest.approx((0.6 + 0.6 + 0.8) / 3)
    assert found.loc[("svd", "perturbation", again)]["size"].item() == 3
    assert found.loc[("svd", "perturbation", compensated)]["mean"].item() == pytest.approx(0.7)
    assert found.loc[("svd", cited.SOFTMAX, again)]["size"].item() == 1
    assert found.loc[("filters", "perturbation", again)]["size"].item() == 2 and len(found) == 7
    assert all(path.exists() for path in cited.draw_cited(table, None, tmp_path / "figure.png")[1])
