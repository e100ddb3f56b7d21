"""Studies: effective rank and products by hand, a whole run of each study on small data, resumption, and figures from tables."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import check_refused
from torch import nn
from torch.testing import assert_close

from lrp.config.build import compose_job
from lrp.config.schema import register
from lrp.errors import InputError
from lrp.figure import figure1, figure2, simplicity_bias
from lrp.figure.figure1 import figure1_table
from lrp.figure.figure2 import figure2_table, missing_cells
from lrp.figure.sweep import summarise_sweep
from lrp.results.collect import study_of
from lrp.study.effective_rank import effective_rank
from lrp.study.product_layer import Product, collapse
from lrp.study.simplicity_bias import gram_eigenvalues, make_network

FIGURES = {figure.FIGURE.name: figure.FIGURE for figure in (figure1, figure2, simplicity_bias)}
FIGURE1 = ["study=dim_rank", "study.dims=[4,8]", "study.ranks=[-1,2,8]", "study.epochs=1"]
FIGURE2 = [
    "study=rank_switch", "study.width=0.03125", "study.images=100", "study.epochs=3", "study.train_ranks=[2,-1]", "study.switch_ranks=[-1,2]",
    "study.switch_epochs=[2,1]",
]  # fmt: skip
BIAS = [
    "study=simplicity_bias", "study.images=200", "study.epochs=2", "study.depths=[1,3]", "study.networks=[linear,conv]", "study.gram_images=50",
    "study.scoring_images=8", "study.sparsities=[0.5,0.9]",
]  # fmt: skip


@pytest.mark.parametrize("k", [1, 3, 10])
def test_effective_rank_of_equal_values(k):
    """k equal singular values, and zeros beside them: log k, and k."""
    entropy, exponential = effective_rank(torch.cat([torch.full((k,), 2.5), torch.zeros(4)]))
    assert math.isclose(entropy, math.log(k), abs_tol=1e-12) and math.isclose(exponential, k, rel_tol=1e-12)


def test_effective_rank_by_hand():
    p = np.array([0.5, 0.25, 0.25])
    assert math.isclose(effective_rank(torch.tensor(p * 7))[0], -(p * np.log(p)).sum(), rel_tol=1e-12)
    assert effective_rank(torch.zeros(3)) == (0.0, 0.0)
    with pytest.raises(ValueError, match="not negative"):
        effective_rank(torch.tensor([1.0, -1.0]))


@pytest.mark.parametrize("dense", [nn.Linear(6, 4), nn.Conv2d(3, 4, 3, padding=1)], ids=["linear", "conv"])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_product_is_its_matrices_in_a_row(dense, depth):
    """The same outputs and gradients as d layers without anything between; collapsed to one layer it computes the same."""
    product = Product(dense, depth).double()
    nn.init.normal_(product.bias)
    x = torch.randn(2, 6, dtype=torch.float64) if isinstance(dense, nn.Linear) else torch.randn(2, 3, 5, 5, dtype=torch.float64)
    copies = [matrix.detach().clone().requires_grad_() for matrix in product.matrices]
    if isinstance(dense, nn.Linear):
        y = x
        for matrix in copies:
            y = y @ matrix.T
        y = y + product.bias
    else:
        y = nn.functional.conv2d(x, copies[0].view(4, 3, 3, 3), padding=1)
        for matrix in copies[1:]:
            y = torch.einsum("om,bmhw->bohw", matrix, y)
        y = y + product.bias.view(-1, 1, 1)
    out = product(x)
    assert_close(out, y)
    out.square().sum().backward()
    y.square().sum().backward()
    for matrix, other in zip(product.matrices, copies):
        assert_close(matrix.grad, other.grad)
    one = collapse(nn.Sequential(product).eval())
    assert type(one[0]) is type(dense) and one[0].weight.dtype == torch.float64
    assert_close(one(x), out)


@pytest.mark.parametrize("name", ["linear", "mlp", "conv"])
def test_networks_collapse(name):
    model = make_network(name, 3, 1, 32, 10)
    x = torch.rand(4, 1, 32, 32)
    assert_close(collapse(model)(x), model(x), atol=1e-5, rtol=1e-4)
    assert all(len(module.matrices) == 3 for module in model.modules() if isinstance(module, Product))


def test_gram_eigenvalues_are_those_of_the_matrix_of_cosines():
    embedding = torch.randn(7, 5)
    cosines = np.corrcoef(np.hstack([embedding.numpy(), -embedding.numpy()]))  # of mean zero rows: cosines
    values = gram_eigenvalues(embedding).numpy()
    assert np.allclose(np.sort(values)[::-1], np.sort(np.linalg.eigvalsh(cosines))[::-1][:5], atol=1e-6)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Every study, two seeds each, run by its job."""
    register()
    place = tmp_path_factory.mktemp("studies")
    for name, words in (("figure1", FIGURE1), ("figure2", FIGURE2), ("simplicity_bias", BIAS)):
        for seed in (0, 1):
            compose_job(*words, f"seed={seed}", f"cache_dir={place}/cache").run(place / name / str(seed))
    return place


@pytest.mark.parametrize(("name", "rows"), [("figure1", 5), ("figure2", 6), ("simplicity_bias", 4)])
def test_every_cell_is_a_row(tables, name, rows):
    for seed in (0, 1):
        table = pd.read_csv(tables / name / str(seed) / "results.csv")
        assert len(table) == rows and (table["seed"] == seed).all() and table["accuracy"].between(0, 1).all()
    assert study_of(tables / name) == name
    assert not list((tables / name).rglob("*.pt"))


@pytest.mark.parametrize("name", ["figure1", "figure2", "simplicity_bias"])
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
    if name == "figure2":
        assert missing_cells(figure2_table(table)) == []
        part = table[~((table["rank_before"] == 2) & (table["switch_epoch"] == 1))]
        assert missing_cells(figure2_table(part)) == ["2 to -1 after 1"]


def test_tables_of_two_settings_are_not_averaged(tables):
    table = pd.read_csv(tables / "figure1" / "0" / "results.csv")
    with pytest.raises(InputError, match="epochs differ"):
        figure1_table(pd.concat([table, table.assign(epochs=7)]))


@pytest.mark.parametrize(("name", "words", "rows"), [("figure1", FIGURE1, 2), ("figure2", FIGURE2, 3), ("simplicity_bias", BIAS, 1)])
def test_a_killed_job_keeps_its_cells_and_gives_the_same(tables, name, words, rows, tmp_path, monkeypatch):
    """Killed in the cell after ``rows``, continued: the finished rows stay, the table is that of an undisturbed job."""
    job = compose_job(*words, "seed=1", f"cache_dir={tmp_path}/cache", "resume=true")
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


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["study=dim_rank", "blocking=square"], "blocking=square: study=dim_rank has no such option; choose among cache_dir, dataset"),
        (["study=dim_rank", "study.ranks=[0]"], "study.ranks=0: must be an integer of at least 1"),
        (["study=rank_switch", "study.train_ranks=[300]"], "study.train_ranks=300: must be -1 (one dense matrix) or an integer from 1 to 256"),
        (["study=rank_switch", "study.switch_epochs=[50]"], "study.switch_epochs=50: must be less than study.epochs=50"),
        (["study=rank_switch", "study.grow=fast"], "study.grow=fast: choose one of orthogonal, svd"),
        (["study=simplicity_bias", "study.networks=[rnn]"], "study.networks=rnn: choose among linear, mlp, conv"),
        (["study=simplicity_bias", "study.scorer=best"], "scorer=best: no such option"),
        (["study=dim_rank", "study.dmis=[4]"], "study.dmis=[4]"),
        (["study=nothing"], "study=nothing: no such option; choose one of dim_rank, rank_switch, simplicity_bias"),
    ],
)
def test_one_sentence_for_bad_input(words, sentence, capsys):
    check_refused(words, sentence, capsys)
