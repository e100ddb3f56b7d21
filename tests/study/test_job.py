"""A whole run of each study on small data, resumption, and figures from its tables."""

import math

import numpy as np
import pandas as pd
import pytest
from shell import digits

from lrp.config.build import compose_job
from lrp.config.schema import register
from lrp.errors import InputError
from lrp.figure import figure1, figure2, masks, simplicity_bias
from lrp.figure.figure1 import figure1_table
from lrp.figure.figure2 import figure2_table, missing_cells
from lrp.figure.sweep import summarise_sweep
from lrp.results.collect import study_of

pytestmark = pytest.mark.slow

FIGURE1 = ["study=dim_rank", "study.dims=[4,8]", "study.ranks=[-1,2,8]", "study.epochs=1"]

FIGURES = {figure.FIGURE.name: figure.FIGURE for figure in (figure1, figure2, simplicity_bias)}
FIGURES |= {figure.name: figure for figure in (masks.AT_INITIALISATION, masks.ITERATIVE)}


FIGURE2 = [
    "study=rank_switch",
    "study.width=0.03125",
    "study.images=100",
    "study.epochs=3",
    "study.train_ranks=[2,-1]",
    "study.switch_ranks=[-1,2]",
    "study.switch_epochs=[2,1]",
]


BIAS = [
    "study=simplicity_bias",
    "study.images=200",
    "study.epochs=2",
    "study.depths=[1,3]",
    "study.networks=[linear,conv]",
    "study.gram_images=20",
    "study.scoring_images=8",
    "study.sparsities=[0.5,0.9]",
]

AT_INITIALISATION = [
    "study=at_initialisation",
    "study.scorers=[random]",
    "study.sparsities=[0.9,0.5]",
    "study.scoring_images=16",
    "study.epochs=1",
]

ITERATIVE = ["study=iterative", "study.selections=[global,erk]", "study.rounds=2", "study.epochs=2", "study.round_epochs=1"]

STUDIES = {"figure1": FIGURE1, "figure2": FIGURE2, "simplicity_bias": BIAS, "at_initialisation": AT_INITIALISATION, "iterative": ITERATIVE}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Every study, two seeds each, run by its job."""
    register()
    place = tmp_path_factory.mktemp("studies")
    for name, words in STUDIES.items():
        for seed in (0, 1):
            compose_job(*words, *digits(place), f"seed={seed}", f"cache_dir={place}/cache").run(place / name / str(seed))
    return place


@pytest.mark.parametrize(("name", "rows"), zip(STUDIES, [5, 6, 4, 5, 5]))
def test_every_cell_is_a_row(tables, name, rows):
    for seed in (0, 1):
        table = pd.read_csv(tables / name / str(seed) / "results.csv")
        assert len(table) == rows and (table["seed"] == seed).all() and table["accuracy"].between(0, 1).all()
    assert study_of(tables / name) == name
    assert not list((tables / name).rglob("*.pt"))


@pytest.mark.parametrize("name", STUDIES)
def test_figures_from_tables(tables, name):
    """What a sweep leaves: merged tables, the figure, and a table whose means are those of the rows."""
    _, paths = summarise_sweep(tables / name, FIGURES[name])
    assert all(path.exists() for path in paths) and tables / name / f"{name}.png" in paths
    table = pd.read_csv(tables / name / "results.csv")
    if name == "figure1":
        cells = pd.read_csv(tables / name / "figure1_table.csv").set_index(["dim", "rank"])
        both = table[(table["dim"] == 8) & (table["rank"] == 2)]["accuracy"]
        assert math.isclose(cells.loc[(8, 2), "mean"], both.mean()) and math.isclose(
            cells.loc[(8, 2), "std"], both.std(ddof=1), abs_tol=1e-12
        )
        assert cells.loc[(8, 2), "seeds"] == 2
    if name == "at_initialisation":
        cells = pd.read_csv(tables / name / f"{name}_table.csv").set_index(["scorer", "sparsity", "mask"])
        both = table[(table["sparsity"] == 0.9) & (table["mask"] == "shuffled")]["accuracy"]
        assert math.isclose(cells.loc[("random", 0.9, "shuffled"), "mean"], both.mean()) and (cells["seeds"] == 2).all()
    if name == "figure2":
        assert missing_cells(figure2_table(table)) == []
        part = table[~((table["rank_before"] == 2) & (table["switch_epoch"] == 1))]
        assert missing_cells(figure2_table(part)) == ["2 to -1 after 1"]


def test_tables_of_two_settings_are_not_averaged(tables):
    table = pd.read_csv(tables / "figure1" / "0" / "results.csv")
    with pytest.raises(InputError, match="epochs differ"):
        figure1_table(pd.concat([table, table.assign(epochs=7)]))


@pytest.mark.parametrize(("name", "words", "rows"), zip(STUDIES, STUDIES.values(), [2, 3, 1, 3, 2]))
def test_a_killed_job_keeps_its_cells_and_gives_the_same(tables, name, words, rows, tmp_path, monkeypatch):
    """Killed in the cell after ``rows``, continued: the finished rows stay, the table is that of an undisturbed job."""
    job = compose_job(*words, *digits(tables), "seed=1", f"cache_dir={tmp_path}/cache", "resume=true")
    kind, done = type(job.study), []
    run = kind.run

    def dies(self, cell, place):
        if len(done) == rows:
            raise KeyboardInterrupt
        done.append(cell)
        return run(self, cell, place)

    monkeypatch.setattr(kind, "run", dies)
    with pytest.raises(KeyboardInterrupt):
        job.run(tmp_path / "job")
    assert len(pd.read_csv(tmp_path / "job" / "results.csv")) == rows
    seen = []
    monkeypatch.setattr(kind, "run", lambda self, cell, place: (seen.append(cell), run(self, cell, place))[1])
    job.run(tmp_path / "job")
    whole = pd.read_csv(tables / name / "1" / "results.csv")
    assert len(seen) == len(whole) - rows
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "job" / "results.csv"), whole)
    details = kind.details
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "job" / details), pd.read_csv(tables / name / "1" / details))


def test_spectra_of_the_linear_network(tables):
    """Ten singular values at the start, after each epoch; the last effective rank is that of the last values."""
    table = pd.read_csv(tables / "simplicity_bias" / "0" / "measures.csv")
    part = table[(table["network"] == "linear") & (table["depth"] == 3)]
    values = part[part["measure"] == "singular_value"]
    assert sorted(values["step"].unique()) == [0, 4, 8] and (values.groupby("step").size() == 10).all()
    last = part[(part["measure"] == "effective_rank_entropy") & (part["part"] == "network") & (part["step"] == 8)]["value"].item()
    p = values[values["step"] == 8]["value"].to_numpy()
    p = p / p.sum()
    assert math.isclose(last, -(p * np.log(p)).sum(), rel_tol=1e-9)
