"""Rows that are averaged over seeds alone, and the figure of them."""

import pandas as pd
import pytest
from helpers import results_row, results_table

from lrp.errors import InputError
from lrp.figure.accuracy import FIGURE, accuracy_table, average_over_seeds, draw_figure3, in_panels, read_reference


@pytest.mark.slow
def test_runs_with_other_options_are_other_lines():
    """What has no column of its own is in ``options``: such runs are not averaged, and the line says what differs."""
    lines = average_over_seeds(
        results_table(
            results_row(options="a.b=1 c.d=2"),
            results_row(options="a.b=1", accuracy=0.7),
            results_row(options="a.b=1", accuracy=0.8, seed=1),
        )
    )
    assert sorted(zip(lines["line"].str.split(", ").str[-1], lines["y"].round(6), lines["seeds"])) == [
        ("d = 2", 0.5, 1),
        ("options default", 0.75, 2),
    ]
    lines = average_over_seeds(results_table(results_row(exclude=None), results_row(exclude="classifier")))
    assert sorted(lines["line"].str.split(", ").str[-1]) == ["every layer", "without classifier"]


def test_runs_on_other_images_and_of_other_rounds_are_other_lines():
    """Test and validation images are not averaged; one keep_factor is one line whatever the rounds it takes, another is another."""
    lines = average_over_seeds(
        results_table(
            results_row(part="test"), results_row(part="validation", accuracy=0.9), results_row(part="test", accuracy=0.7, seed=1)
        )
    )
    assert sorted(zip(lines["line"].str.split(", ").str[-1], lines["y"].round(6), lines["seeds"])) == [
        ("test images", 0.6, 2),
        ("validation images", 0.9, 1),
    ]
    slow, fast = ({"options": f"rounds.keep_factor={k}"} for k in (0.8, 0.5))
    lines = average_over_seeds(
        results_table(results_row(0.8, rounds=3, **fast), results_row(0.9, rounds=4, **fast), results_row(0.8, rounds=8, **slow))
    )
    assert lines.groupby("line")["sparsity"].apply(list).to_list() == [[0.8, 0.9], [0.8]]


def test_only_seeds_are_averaged():
    lines = average_over_seeds(
        results_table(results_row(accuracy=0.4), results_row(accuracy=0.6, seed=1), results_row(accuracy=0.5, calibration_seed=2))
    )
    assert len(lines) == 1 and lines["y"][0] == pytest.approx(0.5) and lines["seeds"][0] == 3 and lines["spread"][0] == pytest.approx(0.1)
    for change in ({"scorer": "magnitude"}, {"per_parameter": True}, {"recovery": "batchnorm"}, {"model": "other"}, {"scoring_images": 7}):
        assert average_over_seeds(results_table(results_row(), results_row(seed=1, **change)))["line"].nunique() == 2


def test_networks_trained_by_seed_are_one_line_but_two_checkpoints_are_two():
    trained = results_table(results_row(checkpoint_sha256="a"), results_row(seed=1, checkpoint_sha256="b"))
    assert average_over_seeds(trained)["line"].nunique() == 1
    given = results_table(results_row(checkpoint_sha256="a"), results_row(checkpoint_sha256="b"))
    assert average_over_seeds(given)["line"].nunique() == 2


def test_tables_put_together_are_not_mixed():
    """Rows of two tables may have one index."""
    table = pd.concat([results_table(results_row(scorer="variance")), results_table(results_row(accuracy=0.7))]).assign(
        scorer=["variance", "magnitude"]
    )
    assert average_over_seeds(table)[["y", "seeds"]].values.tolist() == [[0.5, 1], [0.7, 1]]


def test_panels_hold_few_lines():
    """Scores under several blockings: a panel for each, methods without blocks in all; many settings: a panel for each score."""
    rows = [results_row(scorer=s, blocking=b, blocking_k=None) for s in ("variance", "magnitude") for b in ("none", "square")]
    found = in_panels(average_over_seeds(results_table(*rows, results_row(method="alds", blocking=None, scorer=None))))
    assert found.groupby("panel")["name"].apply(set).to_dict() == {
        "whole layers": {"variance", "magnitude", "ALDS"},
        "square blocks": {"variance", "magnitude", "ALDS"},
    }
    many = [results_row(scorer=s, options=f"scorer.depth={d}") for s in ("variance", "magnitude") for d in range(5)]
    found = in_panels(average_over_seeds(results_table(*many)))
    assert found.groupby("panel")["name"].nunique().to_dict() == {"variance": 5, "magnitude": 5}


def test_the_same_run_twice_counts_once():
    assert average_over_seeds(results_table(results_row(), results_row()))["seeds"].tolist() == [1]


def test_k_names_a_line_only_where_it_differs():
    lines = average_over_seeds(results_table(*[results_row(blocking="alds", blocking_k=k) for k in (2, 4)], results_row()))
    assert sorted(lines["line"]) == [
        "variance, ALDS blocks (k = 2)",
        "variance, ALDS blocks (k = 4)",
        "variance, whole layers",
    ]  # fmt: skip


@pytest.mark.slow
def test_figure_with_reference(tmp_path):
    reference = tmp_path / "alds.csv"
    pd.DataFrame({"method": "alds", "params_kept": [0.5, 0.1], "accuracy": [0.6, 0.1]}).to_csv(reference, index=False)
    rows = [
        results_row(s, accuracy=0.9 - s / 2, seed=seed, blocking=b) for s in (0, 0.5, 0.95) for seed in (0, 1) for b in ("none", "square")
    ]
    paths = draw_figure3(results_table(*rows), tmp_path / "out" / "figure3", reference=read_reference(reference, "accuracy"))
    assert [p.suffix for p in paths] == [".png", ".pdf"] and all(p.stat().st_size > 5000 for p in paths)
    nothing = float("nan")  # as an empty field is read
    draw_figure3(results_table(*rows, results_row(method="alds", blocking=nothing, scorer=nothing)), tmp_path / "alds.png")
    text = accuracy_table(results_table(*rows))
    assert "90.0" in text and "42.5" in text
    with pytest.raises(InputError, match="lacks the column loss"):
        read_reference(reference, "loss")


@pytest.mark.slow
def test_tables_of_text_have_perplexity_and_divergence(tmp_path):
    rows = [results_row(0.4, seed=seed) | {"perplexity": 5.0 + seed, "divergence": 0.25 * seed} for seed in (0, 1)]
    text, _ = FIGURE.draw(pd.DataFrame(rows), None, tmp_path / "figure3")
    first, second = text.split("\n\n")
    assert first.splitlines()[0] == "perplexity" and first.split()[-1] == "5.500"
    assert second.splitlines()[0] == "divergence" and second.split()[-1] == "0.1250"
    assert FIGURE.draw(results_table(results_row(0.4)), None, tmp_path / "figure3")[0].split()[-1] == "50.0"
