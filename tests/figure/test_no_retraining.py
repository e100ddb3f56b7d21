"""Accuracy without a gradient step: which rows are one line."""

import pytest
from helpers import results_row, results_table

from lrp.errors import InputError
from lrp.figure.no_retraining import draw_no_retraining, panels, treated

KNOWN = {"recovery": "batchnorm", "accuracy": 0.6, "accuracy_before_recovery": 0.5}


def test_options_make_lines_only_where_they_differ_at_one_sparsity():
    """What was chosen for each sparsity is one line; two choices at one sparsity are two, named by what differs."""
    chosen = [results_row(share, method="balf", **KNOWN, options=f"scorer.depth={depth}") for share, depth in ((0.5, 0), (0.9, 1))]
    found = treated(results_table(*chosen, results_row(recovery="none")))
    assert set(found["variant"]) == {""} and found.groupby("treatment")["y"].first().to_dict() == {
        "as pruned": 0.5,
        "batch norm re-estimated": 0.6,
    }
    other = results_row(0.9, method="balf", **KNOWN, options="scorer.depth=2", seed=1)
    found = treated(results_table(*chosen, other))
    assert set(found["variant"]) == {"every layer alike", "depth = 1", "depth = 2"}
    with pytest.raises(InputError, match="recovery=batchnorm"):
        treated(results_table(results_row(recovery="none")))


@pytest.mark.slow
def test_a_variant_is_named_by_what_is_unusual(tmp_path):
    rows = [results_row(share, method="output_aware", **KNOWN, seed=seed) for share in (0.5, 0.9) for seed in (0, 1)]
    rows += [results_row(0.9, method="output_aware", **KNOWN | change) for change in ({"blocking": "square"}, {"calibration_images": 7})]
    rows += [results_row(share, method="pca", **KNOWN) for share in (0.5, 0.9)]
    table = results_table(*rows)
    lines = panels(treated(table))
    assert set(lines[lines["panel"] == "output-aware"]["name"]) == {"as pruned", "batch norm re-estimated", "square blocks", "7 images"}
    assert set(lines[lines["panel"] == "PCA"]["name"]) == {"as pruned", "batch norm re-estimated", "output-aware, as pruned"}
    text, paths = draw_no_retraining(table, None, tmp_path / "figure")
    assert "60.00 ± 0.00" in text and all(path.stat().st_size > 5000 for path in paths)
