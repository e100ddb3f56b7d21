"""The W&B workspace, built without a network."""

import subprocess
import sys

import pytest

from lrp.dashboard import STAGES, workspace
from lrp.results.columns import COLUMNS


@pytest.mark.slow
def test_workspace_shows_what_is_logged():
    built = workspace("someone", "lrp")
    assert (built.entity, built.project) == ("someone", "lrp")
    panels = {section.name: [panel.title for panel in section.panels] for section in built.sections}
    assert panels["Accuracy"] == ["Accuracy against sparsity", "Accuracy against MACs removed", "Accuracy before recovery"]
    assert panels["Seconds by stage"] == list(STAGES)
    shown = str(built._to_model())
    for column in ("accuracy", "sparsity_params", "sparsity_macs", "accuracy_before_recovery", *STAGES):
        assert column in COLUMNS and column in shown
    assert "rank/.*" in shown and "blocking" in shown and "scorer" in shown


@pytest.mark.slow
def test_command_wants_entity_and_project():
    done = subprocess.run([sys.executable, "-m", "lrp.dashboard", "nothing"], capture_output=True, text=True)
    assert done.returncode == 1 and "ENTITY/PROJECT" in done.stderr and "Traceback" not in done.stderr
