"""The study of widths and ranks: its cells, what it counts, what it refuses."""

import pytest
from helpers import refused, study_place

from lrp.study.dim_rank import DimRank

DIMS, RANKS = [10, 20, 50, 100, 200, 500], [-1, 5, 10, 20, 50, 100, 200, 500]


def test_dim_rank_cells():
    """Those of the paper's figure: every rank up to dim, and the dense matrix."""
    cells = DimRank(DIMS, RANKS, epochs=1, batch_size=64, lr=1e-3).cells()
    assert len(cells) == len({tuple(cell.values()) for cell in cells}) == 33
    assert {dim: sum(cell["dim"] == dim for cell in cells) for dim in DIMS} == dict(zip(DIMS, [3, 4, 5, 6, 7, 8]))
    assert all(cell["rank"] <= cell["dim"] for cell in cells)
    assert [cell["dim"] for cell in cells if cell["rank"] == -1] == DIMS


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "hidden"), [(-1, 3072 * 6), (6, 6 * (3072 + 6)), (2, 2 * (3072 + 6))])
def test_dim_rank_counts_what_it_trains(rank, hidden, data, tmp_path):
    """A rank that equals dim is two factors all the same; -1 is one matrix."""
    study = DimRank([6], [-1, 2, 6], epochs=2, batch_size=32, lr=0.01)
    row, details = study.run({"dim": 6, "rank": rank}, study_place(data, tmp_path))
    assert row["params_hidden"] == hidden + 6 and row["params"] == hidden + 6 + 6 * 10 + 10
    assert set(row) == set(study.columns) and list(details["epoch"]) == [1, 2]
    assert row["loss"] == details["loss"].iloc[-1] != details["loss"].iloc[0]
    again, _ = study.run({"dim": 6, "rank": rank}, study_place(data, tmp_path))
    assert again == row


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dims": [0]}, ["study.dims=0"]),
        ({"dims": 5}, ["study.dims=5"]),
        ({"dims": [5, 5]}, ["study.dims=[5, 5]"]),
        ({"ranks": [0]}, ["study.ranks=0"]),
        ({"ranks": [-2]}, ["study.ranks=-2"]),
        ({"ranks": [7]}, ["study.ranks=[7]", "at most study.dims=[4, 6]"]),
        ({"ranks": [True]}, ["study.ranks=True"]),
        ({"ranks": [1.5]}, ["study.ranks=1.5"]),
        ({"epochs": 0}, ["study.epochs=0"]),
        ({"lr": -1}, ["study.lr=-1"]),
    ],
)
def test_dim_rank_refuses(options, words):
    settings = {"dims": [4, 6], "ranks": [-1, 2], "epochs": 1, "batch_size": 32, "lr": 0.01}
    refused(lambda: DimRank(**(settings | options)), *words)
