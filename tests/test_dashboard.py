"""The W&B workspace, built without a network."""

import subprocess
import sys

import pytest
from helpers import results_row, results_table

from lrp.dashboard import STAGES, SUMMARY, workspace
from lrp.figure.accuracy import average_over_seeds
from lrp.results.columns import COLUMNS
from lrp.results.labels import line_label


@pytest.mark.slow
def test_workspace_shows_what_is_logged():
    built = workspace("someone", "lrp")
    assert (built.entity, built.project) == ("someone", "lrp")
    panels = {section.name: [panel.title for panel in section.panels] for section in built.sections}
    assert panels["Accuracy"] == ["Accuracy against sparsity", "Accuracy against MACs removed", "Accuracy before recovery"]
    assert panels["Seconds by stage"] == list(STAGES) and panels["Summary"] == list(SUMMARY)
    shown = str(built._to_model())
    for column in ("accuracy", "sparsity_params", "sparsity_macs", "accuracy_before_recovery", *STAGES):
        assert column in COLUMNS and column in shown
    assert "train/loss" in shown and "finetune/loss/.*" in shown
    assert "rank/.*" in shown and "blocking" in shown and "scorer" in shown
    assert [group.name for group in built.runset_settings.groupby] == ["method", "label", "blocking", "scorer"]


@pytest.mark.slow
def test_command_wants_entity_and_project():
    done = subprocess.run([sys.executable, "-m", "lrp.dashboard", "nothing"], capture_output=True, text=True)
    assert done.returncode == 1 and "ENTITY/PROJECT" in done.stderr and "Traceback" not in done.stderr


def test_the_label_is_that_of_the_figures():
    """Methods whose parts have the same names in part are groups of their own."""
    labels, groups = [], []
    for method in ("balf", "svd_energy", "pca", "singular_vectors"):
        row = results_row(method=method, scorer="energy")
        groups.append(row["method"])  # the first group of the workspace
        labels.append(line_label(row))
        assert average_over_seeds(results_table(row))["line"].tolist() == [labels[-1]]
    assert len(set(labels)) == len(set(groups)) == 4
