"""What lines are called."""

import pandas as pd
import pytest
from helpers import results_row, results_table

from lrp.figure.accuracy import average_over_seeds
from lrp.figure.style import one_setting
from lrp.results.labels import BLOCKINGS, NAMES, apart, line_label, said
from lrp.results.tables import read_table

ROWS = [  # all kinds of cells: empty, true or false, numbers and texts
    results_row(0.5, exclude=None, options=None, blocking="alds", blocking_k=4),
    results_row(0.5, exclude="conv1", options="scorer.depth=0.5 forms=['matrix']", per_parameter=True),
    results_row(0.5, exclude=None, options="scorer.depth=1.0", per_parameter=None, calibration_images=4000),
    results_row(
        0.5, method="alds", exclude=None, blocking=None, scorer=None, estimator=None, selection=None, per_parameter=None, options=None
    ),
]


def test_a_resumed_run_changes_no_label(tmp_path):
    """Rows that were read again, beside rows that were just made, are called as they would be in an undisturbed run."""
    undisturbed = results_table(*ROWS, *({**row, "sparsity": 0.9} for row in ROWS))
    results_table(*ROWS).to_csv(tmp_path / "results.csv", index=False)
    again = read_table(tmp_path / "results.csv")
    resumed = pd.DataFrame([*again.to_dict("records"), *({**row, "sparsity": 0.9} for row in ROWS)], columns=undisturbed.columns)
    lines, expected = average_over_seeds(resumed), average_over_seeds(undisturbed)
    assert sorted(lines["line"]) == sorted(expected["line"])
    assert expected["line"].nunique() == len(ROWS) and not any("nan" in line.lower() or "None" in line for line in lines["line"])


def test_a_study_s_resumed_table_is_one_setting():
    table = pd.DataFrame({"seed": [0, 1], "rank": [4, 4], "other": pd.Series([None, float("nan")], dtype=object), "accuracy": [0.5, 0.6]})
    assert len(one_setting(table, ["rank"], ["accuracy"])) == 2


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("blocking_k", 4.0, "k = 4"), ("exclude", None, "every layer"), ("exclude", float("nan"), "every layer"),
        ("scorer.depth", "0.50", "depth = 0.5"), ("forms", "['matrix']", "matrices alone"), ("per_parameter", 1.0, "per parameter"),
        ("per_parameter", True, "per parameter"), ("selection", "uniform_plus", "selection uniform+"),
        ("calibration_images", 4000, "4,000 images"),
    ],
)  # fmt: skip
def test_words(name, value, words):
    assert said(name, value) == words


def test_labels_are_words():
    assert line_label(results_row(scorer="relative_error", blocking="alds", blocking_k=4.0)) == "relative error, ALDS blocks (k = 4)"
    assert line_label(results_row(method="output_aware")) == "output-aware"
    assert len({*NAMES.values()}) == len(NAMES) and len({*BLOCKINGS.values()}) == len(BLOCKINGS)


def test_no_two_lines_have_the_same_words():
    """Options of two parts with one name are told by their full names."""
    assert apart([[("a.size", "1")], [("b.size", "1")], [("b.size", "2")]]) == ["a.size=1", "b.size=1", "size = 2"]
