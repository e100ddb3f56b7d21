"""Networks pruned before they are trained: what the masks are, that they hold, and what is beside them."""

import pytest
import torch
from helpers import SEED, refused, study_place
from torch import nn

from lrp.config.build import compose_job
from lrp.decomposition.entries import Entries
from lrp.decomposition.svd import Svd
from lrp.layer.base import LowRank
from lrp.layer.masked import Masked
from lrp.scorer.magnitude import Magnitude
from lrp.scorer.random import Random
from lrp.scorer.snip import Snip
from lrp.selection.global_ import GlobalSelection
from lrp.study import networks
from lrp.study.at_initialisation import AtInitialisation
from lrp.study.pruned import begin, prune
from lrp.study.training import StudySgd


class Tiny(nn.Sequential):
    """A convolution, batch norm and two Linear layers."""

    def __init__(self, in_channels, num_classes):
        norm = [nn.Conv2d(in_channels, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU()]
        super().__init__(*norm, nn.Flatten(), nn.Linear(256, 12), nn.ReLU(), nn.Linear(12, num_classes))


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "tiny", Tiny)


def study(**options):
    usual = {
        "network": "tiny", "decomposition": Entries(), "scorers": [Snip()], "selection": GlobalSelection(), "sparsities": [0.9],
        "masks": ["scored", "shuffled"], "dense": True, "scoring_images": 32, "images": 64, "epochs": 2, "batch_size": 16, "lr": 0.1,
        "momentum": 0.9, "weight_decay": 0.01,
    }  # fmt: skip
    return AtInitialisation(**(usual | options))


def pruned(data, tmp_path, decomposition, sparsity=0.9, scorer=None):
    place = study_place(data, tmp_path)
    model = begin("tiny", place)
    scoring = data.calibration(32, SEED)
    return model, prune(model, data, scoring, decomposition, scorer or Snip(), GlobalSelection(), sparsity)


def test_snip_is_what_a_training_forward_gives(data, tmp_path):
    """|w dL/dw| by autograd through the network with the batch norm of the scoring images, the highest tenth of all weights."""
    model, found = pruned(data, tmp_path, Entries())
    images = data.calibration(32, SEED)
    x = data.normalise(images.images)
    statistics = [(model[0](x).mean((0, 2, 3)), model[1].running_mean), (model[0](x).var((0, 2, 3)), model[1].running_var)]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in statistics)
    nn.functional.cross_entropy(model(x), images.labels).backward()
    scores = torch.cat([(model[i].weight * model[i].weight.grad).abs().flatten() for i in (0, 4, 6)])
    kept = torch.cat(found.keep)
    assert int(kept.sum()) == len(scores) // 10
    assert scores[kept].min().item() >= scores[~kept].max().item() * (1 - 1e-3)


def test_the_shuffled_mask_keeps_what_each_layer_keeps(data, tmp_path):
    model, found = pruned(data, tmp_path, Entries())
    masks = [[m.mask for m in network.modules() if isinstance(m, Masked)] for network in (found.network(), found.shuffled(3))]
    assert [int(mask.sum()) for mask in masks[0]] == [int(mask.sum()) for mask in masks[1]] == found.layers()["kept"].tolist()
    assert not all(torch.equal(a, b) for a, b in zip(*masks))
    again, other = found.shuffled(3), found.shuffled(4)
    assert torch.equal(again[4].mask, masks[1][1]) and not torch.equal(other[4].mask, masks[1][1])
    weights = model[4].weight
    assert torch.equal(again[4].weight_matrix(), torch.where(again[4].mask, weights, 0)), "the weights are those of the initialisation"


def test_ranks_stay_and_factors_are_drawn_anew(data, tmp_path):
    _, found = pruned(data, tmp_path, Svd(), 0.5)
    scored, shuffled = found.network(), found.shuffled(3)
    held = [[[rank for _, rank in m.blocks] for m in network.modules() if isinstance(m, LowRank)] for network in (scored, shuffled)]
    assert held[0] == held[1] != []
    layers = [(a, b) for a, b in zip(scored.modules(), shuffled.modules()) if isinstance(a, LowRank)]
    for a, b in layers:
        for factor, other in zip(a.V.values(), b.V.values(), strict=True):
            bound = (6 / sum(other.shape)) ** 0.5
            assert not torch.equal(factor, other) and other.abs().max().item() <= bound, "Glorot's"


@pytest.mark.parametrize("mask", ["scored", "shuffled"])
def test_masked_weights_stay_zero_while_they_are_trained(data, tmp_path, mask):
    _, found = pruned(data, tmp_path, Entries())
    network = found.network() if mask == "scored" else found.shuffled(3)
    before = {name: m.mask.clone() for name, m in network.named_modules() if isinstance(m, Masked)}
    start = {name: m.weight_matrix().clone() for name, m in network.named_modules() if isinstance(m, Masked)}
    StudySgd(2, 0.1, 0.9, 0.01, 16)(network, data, data.train, SEED, tmp_path / "state.pt")
    for name, held in before.items():
        layer = network.get_submodule(name)
        assert torch.equal(layer.mask, held) and bool((layer.weight_matrix()[~held] == 0).all())
        assert not torch.equal(layer.weight_matrix(), start[name]), "what is left was trained"


def test_nothing_removed_is_the_dense_network(data, tmp_path):
    """Bit for bit, before and after it is trained."""
    model, found = pruned(data, tmp_path, Entries(), 0.0)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), found.network().state_dict().values(), strict=True))
    asked = study(sparsities=[0.0], masks=["scored"])
    dense, scored = (asked.run(cell, study_place(data, tmp_path))[0] for cell in asked.cells())
    differing = {name for name in dense if dense[name] != scored[name]}
    assert differing == {"scorer", "mask"} and (dense["scorer"], scored["scorer"]) == ("dense", "snip")


def test_rows(data, tmp_path):
    asked = study(scorers=[Snip(), Magnitude()], sparsities=[0.5, 0.9])
    assert [tuple(cell.values()) for cell in asked.cells()][:3] == [
        ("dense", 0.0, "dense"),
        ("snip", 0.5, "scored"),
        ("snip", 0.5, "shuffled"),
    ]
    assert len(asked.cells()) == 9 and len(study(dense=False).cells()) == 2
    row, layers = asked.run(asked.cells()[4], study_place(data, tmp_path))
    assert set(row) == set(asked.columns) and row["kept"] == layers["kept"].sum() and row["weights"] == layers["weights"].sum() == 3300
    assert row["sparsity_params"] == pytest.approx(0.9) and row["images"] == 64
    assert not list(tmp_path.rglob("*.pt"))


def test_the_scorer_of_a_job_is_drawn_by_its_seed():
    job = compose_job("study=at_initialisation", "study.scorers=[random,grasp]", "study.selection=erk", "seed=7")
    assert job.study.scorers[0] == Random(7) and job.study.selection.name == "erk"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"network": "lenet"}, ["study.network=lenet", "lenet_300_100"]),
        ({"sparsities": [1]}, ["study.sparsities=1"]),
        ({"sparsities": 0.5}, ["study.sparsities=0.5"]),
        ({"masks": ["drawn"]}, ["study.masks=drawn", "scored, shuffled"]),
        ({"dense": 1}, ["study.dense=1"]),
        ({"scoring_images": 0}, ["study.scoring_images=0"]),
        ({"epochs": 0}, ["study.epochs=0"]),
        ({"lr": 0}, ["study.lr=0"]),
    ],
)
def test_refuses(options, words):
    refused(lambda: study(**options), *words)


@pytest.mark.parametrize("words", [["study.scorers=[snip,snip]"], ["study.selection=[erk]"]])
def test_parts_that_cannot_be_are_refused(words):
    refused(lambda: compose_job("study=at_initialisation", *words), words[0].split("=")[0].removeprefix("study.").removesuffix("s"))
