"""What a run comes to in a few numbers."""

import pandas as pd
import pytest

from lrp.tracker.summary import summarise


def rows(points, dense=0.9, **more):
    table = {"sparsity": [s for s, _ in points], "sparsity_params": [s for s, _ in points], "accuracy": [a for _, a in points]}
    return pd.DataFrame({**table, "accuracy_dense": dense, **more})


def test_accuracies_where_they_were_asked_for_and_between():
    found = summarise(rows([(0.9, 0.3), (0.5, 0.8), (0.7, 0.6)]))  # in any order
    assert found["accuracy_at_50"] == 0.8 and found["accuracy_at_90"] == 0.3
    assert found["accuracy_at_80"] == pytest.approx(0.45) and "accuracy_at_95" not in found
    assert found["accuracy_dense"] == 0.9 and found["rows"] == 3


def test_the_last_row_is_no_summary():
    first = summarise(rows([(0.5, 0.8), (0.9, 0.3)]))
    assert first == summarise(rows([(0.9, 0.3), (0.5, 0.8)])) and "accuracy" not in first


def test_the_area_by_hand():
    """From the dense network: (0.9 + 0.7) / 2 over a half, (0.7 + 0.5) / 2 over three tenths, divided by the width 0.8."""
    found = summarise(rows([(0.5, 0.7), (0.8, 0.5)]))
    assert found["accuracy_area"] == pytest.approx((0.8 * 0.5 + 0.6 * 0.3) / 0.8) and found["accuracy_area_to"] == 0.8
    assert summarise(rows([(0, 0.8), (0.8, 0.8)]))["accuracy_area"] == pytest.approx(0.8)  # a row at 0 stands there instead


def test_seconds_are_means_over_the_rows():
    found = summarise(rows([(0.5, 0.8), (0.9, 0.3)], seconds_select=[1.0, 3.0], seconds_score=[None, None]))
    assert found["seconds_select"] == 2.0 and "seconds_score" not in found


@pytest.mark.parametrize("table", [pd.DataFrame(), pd.DataFrame({"study": ["x"], "accuracy": [0.5]}), rows([(0.5, 0.8), (0.5, 0.7)])])
def test_other_tables_have_none(table):
    assert summarise(table) == {}


def test_only_the_dense_network():
    assert summarise(rows([(0, 0.8)])) == {"rows": 1, "accuracy_dense": 0.9}
