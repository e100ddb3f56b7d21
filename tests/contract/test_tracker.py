"""What every tracker fulfils: a job may tell it everything, and never fails or waits because of it."""

import pandas as pd
import pytest
from contract.adapt import every, from_python

LAYERS = pd.DataFrame({"sparsity": [0.5], "layer": ["a"], "block": [0], "shape": ["2x2"], "kept": [1], "full": [2], "dense": [False]})
ROWS = pd.DataFrame({"model": ["m"], "sparsity": [0.5], "accuracy": [0.9]})


@pytest.mark.slow
@every("tracker")
def test_a_job_may_tell_it_everything(name, tmp_path):
    (tmp_path / "results.csv").write_text("model,sparsity\nm,0.5\n")
    settings, chosen = {"seed": 0, "model": {"width": 1.0, "checkpoint": None}}, {"scorer": "magnitude"}
    with from_python("tracker", name, mode="disabled").start(settings, chosen, tmp_path, "sweep") as tracked:
        tracked.rows(ROWS)
        tracked.row(ROWS.iloc[0].to_dict(), LAYERS)
        tracked.row(ROWS.iloc[0].to_dict(), None)  # of a study
        tracked.file(tmp_path / "results.csv")


@pytest.mark.slow
@every("tracker")
def test_what_a_job_raises_comes_through(name, tmp_path):
    with pytest.raises(KeyError, match="the job's own"), from_python("tracker", name, mode="disabled").start({}, {}, tmp_path, None):
        raise KeyError("the job's own")
