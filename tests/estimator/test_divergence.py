"""The one divergence: padding does not count in it, and the dense network runs once."""

import copy

import pytest
import torch
from helpers import close, factors_of
from texts import Reader, texts
from torch import nn

from lrp.batches import Batches
from lrp.blocking.none import Unblocked
from lrp.compensation.surgeon import Surgeon
from lrp.config.parts import make
from lrp.estimator import divergence as module
from lrp.estimator.divergence import Divergence
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.evidence import Evidence
from lrp.layer.build import build
from lrp.network.own_loss import drawn_gradients, mean_gradients
from lrp.scorer.layer_error import LayerError

PADDED = [{"padding": 4}, {"padding": 4, "garbage": 7}, {"padding": 4, "left": True}]


def evidence_of(model, **padding):
    return Evidence(model, list(texts(3, **padding)), None, 15).of(make("estimator", "first_order"), (), 65536)


@pytest.fixture
def reader():
    return Reader().double().eval()


@pytest.mark.parametrize("padding", PADDED)
def test_padding_changes_neither_lems_nor_surgeon(reader, padding):
    """The scores of lems, the gradients that surgeon draws and what it makes of them."""
    factors = [f for f in factors_of(reader, Unblocked())[1] if f.block.layer != "words"]
    keep = [torch.arange(len(f.S)) < 3 for f in factors]
    scores, smalls = [], []
    for evidence in (evidence_of(reader), evidence_of(reader, **padding)):
        scores.append(LayerError(measured_at=0.4)(factors, evidence))
        small = build(reader, factors, keep)
        plain = copy.deepcopy(small)
        Surgeon().with_network(small, evidence.survey, evidence)
        smalls.append(small)
    assert all(close(a, b, 1e-9) for a, b in zip(*scores))
    (batch,) = texts(1)
    with torch.no_grad():
        assert close(smalls[0](**batch), smalls[1](**batch), 1e-9)
        assert not torch.equal(smalls[0](**batch), plain(**batch))  # surgeon did something


class Words(nn.Sequential):
    """Logits (B, L, K) of each token from it alone."""

    def __init__(self, classes):
        super().__init__(nn.Embedding(11, 8), nn.Linear(8, classes))

    def forward(self, input_ids, attention_mask=None):
        return super().forward(input_ids)


@pytest.mark.parametrize("labels", ["own", "next"])
def test_padding_changes_no_gradient_of_the_own_loss(labels):
    model = Words(11).double()
    found = [mean_gradients(model, ["1"], Batches.of(list(texts(2, padding=each))), lambda y: y, labels)["1"] for each in (0, 5)]
    slow, rows = torch.zeros(11, 8).double(), 0
    for batch in texts(2):
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"].bool()):
            ids = ids[mask]
            z = model(ids)
            z, wanted = (z, z.argmax(1)) if labels == "own" else (z[:-1], ids[1:])
            loss = nn.functional.cross_entropy(z, wanted, reduction="sum")
            slow, rows = slow + torch.autograd.grad(loss, model[1].weight)[0], rows + len(wanted)
    assert all(close(grad, slow / rows) for grad in found)


def test_an_example_without_a_token_that_counts_draws_nothing():
    batch = next(texts(1))
    batch["attention_mask"][1] = 0
    found = [gradient["1"] for gradient in drawn_gradients(Words(5), ["1"], Batches.of([batch]), lambda y: y)]
    assert [bool(gradient.any()) for gradient in found] == [True, False, True, True, True]


class Counting(nn.Linear):
    """How many examples it has seen."""

    seen = 0

    def forward(self, x):
        self.seen += len(x)
        return super().forward(x)


@pytest.mark.parametrize(("limit", "runs"), [(1.0, 1), (12 * 3 * 4 / 2**30, 3)])
def test_the_dense_network_runs_once_as_far_as_its_outputs_are_held(limit, runs, monkeypatch):
    """20 examples in batches of at most 12, or of one where outputs are not to take memory; of three networks each."""
    monkeypatch.setattr(module, "AT_ONCE", 12)
    dense, x = Counting(4, 3).train(), Batches.of(torch.randn(20, 4))
    found = Divergence(dense, x, FirstOrderEstimator(memory_limit=limit), 2.0)
    for _ in range(3):
        small = nn.Linear(4, 3)
        with torch.no_grad():
            p, q = ((net(x.whole()) / 2).double().softmax(1) for net in (nn.Linear.forward.__get__(dense), small))
        assert found(small) == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=1e-5)
    held = 20 if limit == 1 else 12  # outputs of so many examples are three numbers of four bytes each
    assert dense.seen == 1 + held + runs * (20 - held) and dense.training
