"""What every tracker fulfils: a job may tell it everything, and never fails or waits because of it."""

import pandas as pd
import pytest
from contract.adapt import every, from_python

LAYERS = pd.DataFrame({"sparsity": [0.5], "layer": ["a"], "block": [0], "shape": ["2x2"], "kept": [1], "full": [2], "dense": [False]})
ROWS = pd.DataFrame({"model": ["m"], "sparsity": [0.5], "accuracy": [0.9]})


def alone(name, folder):
    """The tracker, which sends nothing and writes into the folder alone."""
    tracker = from_python("tracker", name, mode="disabled", dir=str(folder / "store"))
    assert isinstance(tracker.active, bool) and tracker.name == name
    return tracker


@pytest.mark.slow
@every("tracker")
def test_a_job_may_tell_it_everything(name, tmp_path):
    (tmp_path / "results.csv").write_text("model,sparsity\nm,0.5\n")
    settings, chosen = {"seed": 0, "model": {"width": 1.0, "checkpoint": None}}, {"scorer": "magnitude"}
    with alone(name, tmp_path).start(settings, chosen, tmp_path, "sweep") as tracked:
        tracked.rows(ROWS)
        for training in ("train", "finetune"):
            tracked.epoch(training, "50" * (training != "train"), {"epoch": 1, "loss": 0.5, "validation_accuracy": float("nan")})
        tracked.row(ROWS.iloc[0].to_dict(), LAYERS)
        tracked.row(ROWS.iloc[0].to_dict(), None)  # of a study
        tracked.model(tmp_path / "model-0.5.safetensors", "0.5", ROWS.iloc[0].to_dict())  # which is not there
        tracked.files([tmp_path / "results.csv", tmp_path / "figure3.png"])
    assert {file.name for file in tmp_path.iterdir()} <= {"results.csv", "store", "wandb", f"{name}.json"}


@pytest.mark.slow
@every("tracker")
def test_what_a_job_raises_comes_through(name, tmp_path):
    with pytest.raises(KeyError, match="the job's own"), alone(name, tmp_path).start({}, {}, tmp_path, None):
        raise KeyError("the job's own")
