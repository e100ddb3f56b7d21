"""Networks that are trained until their loss stalls, each at a rate of its own."""

import pandas as pd
import pytest
import torch

from lrp.config.build import compose_job
from lrp.errors import InputError
from lrp.figure.simplicity_bias import draw_simplicity_bias
from lrp.study import settled
from lrp.study.job import Place
from lrp.study.settled import PATIENCE, stalled

SMALL = ["study.images=200", "study.networks=[mlp]", "study.depths=[2]", "study.gram_images=20", "study.scoring_images=8"]
CELL = {"network": "mlp", "depth": 2}


def run(tmp_path, *words, study="settled"):
    more = ["study.calibration_images=100", "study.sparsities=[0.5,0.9]"] if study == "settled" else ["study.sparsities=[0.5,0.9]"]
    job = compose_job(f"study={study}", "dataset=mnist_small", "tracker=none", *SMALL, *more, *words)
    return job.study.run(CELL, Place(job.dataset.load(), 0, torch.device("cpu"), tmp_path))


def test_at_one_rate_it_is_the_plain_study(tmp_path):
    row, table = run(tmp_path, "study.rates=[0.05]", "study.epochs=3")
    plain, plainly = run(tmp_path, "study.lr=0.05", "study.epochs=3", study="simplicity_bias")
    differing = {name for name in plain if row[name] != plain[name]}
    assert differing == {"lr"} and row["rate"] == 0.05 and row["epochs_trained"] == 3
    shared = table[~table["measure"].isin(["accuracy_tried", "accuracy_compensated"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(shared, plainly)


def test_the_rate_that_ends_best_counts_and_what_diverges_is_out(tmp_path):
    row, table = run(tmp_path, "study.rates=[0.0001,0.05,1000]", "study.epochs=4")
    tried = table[table["measure"] == "accuracy_tried"].set_index("index")["value"]
    assert row["rate"] == tried.idxmax() == 0.05 and tried.isna().to_dict() == {0.0001: False, 0.05: False, 1000: True}
    assert tried[0.05] == row["accuracy_validation"]
    plain, _ = run(tmp_path, "study.lr=0.05", f"study.epochs={row['epochs_trained']}", study="simplicity_bias")
    assert row["accuracy"] == plain["accuracy"] and row["loss"] == plain["loss"]


def test_it_ends_where_the_loss_stalls(tmp_path):
    row, _ = run(tmp_path, "study.rates=[0.05]", "study.epochs=8", "study.stall=0.9")  # of which three epochs never take off so much
    assert row["epochs_trained"] == PATIENCE + 1 and row["epochs"] == 8


def test_a_rate_that_diverges_later_gives_way_to_the_next(tmp_path, monkeypatch):
    epoch = settled.Settled._epoch

    def diverging(study, training, *given):
        epoch(study, training, *given)
        if training.optimizer.param_groups[0]["lr"] == 0.05 and len(training.losses) == 3:
            raise InputError("study.lr=0.05: the training diverged; choose a smaller one")

    assert run(tmp_path, "study.rates=[0.001,0.05]", "study.epochs=4")[0]["rate"] == 0.05
    monkeypatch.setattr(settled.Settled, "_epoch", diverging)
    assert run(tmp_path, "study.rates=[0.001,0.05]", "study.epochs=4")[0]["rate"] == 0.001


def test_all_rates_diverge(tmp_path):
    with pytest.raises(InputError, match=r"study.rates=.*diverges at each of them"):
        run(tmp_path, "study.rates=[1000,3000]")


def test_compensation_gives_back_what_was_lost(tmp_path):
    row, table = run(tmp_path, "study.rates=[0.05]", "study.epochs=4")
    kept = {name: table[table["measure"] == f"accuracy_{name}"].set_index("index")["value"] for name in ("pruned", "compensated")}
    assert kept["compensated"].mean() == row["accuracy_compensated_mean"] > row["accuracy_pruned_mean"] == kept["pruned"].mean()
    _, without = run(tmp_path, "study.rates=[0.05]", "study.epochs=4", "study.compensation=none")
    same = without[without["measure"] == "accuracy_compensated"].set_index("index")["value"]
    pd.testing.assert_series_equal(same, kept["pruned"])


def test_the_figure_takes_rates_that_differ(tmp_path):
    rows = [run(tmp_path, f"study.rates=[{rate}]", "study.epochs=2") for rate in (0.02, 0.05)]
    table = pd.DataFrame([{"study": "simplicity_bias", "seed": i, **row, "rates": "0.02 0.05"} for i, (row, _) in enumerate(rows)])
    details = pd.concat([table.assign(seed=i, **CELL) for i, (_, table) in enumerate(rows)])
    markdown, paths = draw_simplicity_bias(table, details, tmp_path / "bias.png")
    assert all(path.exists() for path in paths) and "| mlp | 2 |" in markdown


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0, 0.9], False),
        ([1.0, 0.95, 0.94, 0.93], True),  # 7 % in three epochs
        ([1.0, 0.95, 0.94, 0.89], False),
        ([1.0, 0.5, 0.6, 0.6, 0.6], True),
        ([0.0, 0.0, 0.0, 0.0], True),
    ],
)
def test_stalled(losses, expected):
    assert stalled(losses, 0.1) is expected


def test_a_rate_beside_the_rates_is_refused():
    with pytest.raises(InputError, match=r"study.lr=0.1: a rate is chosen among study.rates"):
        compose_job("study=settled", "study.lr=0.1", "tracker=none")
