"""Outputs over tokens and pixels: one softmax for each, the mean over those that count."""

import dataclasses

import pytest
import torch
from helpers import ESTIMATORS, close, factors_of, slow_differences
from texts import Reader, texts

from lrp.batches import Batches
from lrp.blocking.none import Unblocked
from lrp.errors import InputError
from lrp.estimator.divergence import divergence
from lrp.estimator.first_order import FirstOrderEstimator

MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]]).bool()
READS = {"probabilities": lambda p: p, "hellinger": lambda p: 2 * p.sqrt()}


def slow(y, output, mask=None, temperature=1.0):
    """Of each example, for each place that counts, what is preserved, over the square root of how many there are; y (B, places, K)."""
    rows = []
    for i, example in enumerate(y):
        counts = [t for t in range(len(example)) if mask is None or mask[i, t]]
        places = [READS[output]((z / temperature).softmax(0)) if t in counts else torch.zeros_like(z) for t, z in enumerate(example)]
        rows.append(torch.cat(places) / max(len(counts), 1) ** 0.5)
    return torch.stack(rows)


@pytest.mark.parametrize("output", READS)
def test_a_softmax_for_each_place(output):
    read = FirstOrderEstimator(output=output, temperature=1.5).read
    y = torch.randn(3, 4, 6, dtype=torch.float64)
    assert close(read(y), slow(y, output, temperature=1.5))
    assert close(read(y, MASK), slow(y, output, MASK, 1.5))
    assert close(read(y, MASK[:, :3]), read(y))  # a mask of other tokens than the outputs'
    pixels = torch.randn(3, 6, 2, 2, dtype=torch.float64)
    assert close(read(pixels), slow(pixels.flatten(2).mT, output, temperature=1.5))
    assert close(read(y[:, 0]), slow(y[:, :1], output, temperature=1.5))
    first = FirstOrderEstimator(output=output, class_dim=1).read
    assert close(first(y.mT, MASK), slow(y, output, MASK))
    last = FirstOrderEstimator(output=output, class_dim=-1).read
    assert close(last(pixels), slow(pixels.flatten(1, 2), output))
    assert bool(read(torch.full_like(y, torch.nan).where(~MASK[..., None], y), MASK).isfinite().all())


def test_logits_are_as_they_were_but_for_padding():
    read, y = FirstOrderEstimator().read, torch.randn(3, 4, 6)
    assert torch.equal(read(y), y.flatten(1)) and torch.equal(read(y[:, 0], MASK), y[:, 0])
    assert torch.equal(read(y, MASK), (y * MASK[..., None]).flatten(1))
    assert torch.equal(FirstOrderEstimator(class_dim=1).read(y.mT, MASK), (y * MASK[..., None]).mT.flatten(1))


@pytest.mark.parametrize("value", [0, True, 1.5, "last"])
def test_dimensions_that_hold_no_classes(value):
    with pytest.raises(InputError, match=f"^estimator.class_dim={value}: must be null or a dimension other than 0"):
        FirstOrderEstimator(class_dim=value)


@pytest.mark.parametrize("value", [3, -3])
def test_dimensions_that_the_output_lacks(value):
    with pytest.raises(InputError, match=rf"^estimator.class_dim={value}: the output \(2, 3, 4\) has the dimensions 1 to 2, or -1"):
        FirstOrderEstimator(output="hellinger", class_dim=value).read(torch.ones(2, 3, 4))


def test_options_are_in_the_identity_where_they_differ():
    plain = FirstOrderEstimator()
    assert "class_dim" not in plain.identity and "class_dim=1" in dataclasses.replace(plain, class_dim=1).identity


def test_a_large_vocabulary_keeps_its_distances():
    """Of 20 pairs the squared distance after the projection, over that before: one, within 4 standard errors."""
    torch.manual_seed(0)
    y = torch.randn(20, 3, 5000, dtype=torch.float64)
    other = y + 0.3 * torch.randn_like(y)
    read = FirstOrderEstimator(output="hellinger").read
    assert read(y).shape == (20, 3 * 256) and torch.equal(read(y), read(y))
    before = (slow(y, "hellinger") - slow(other, "hellinger")).square().sum(1)
    ratios = (read(y) - read(other)).square().sum(1) / before
    assert abs(float(ratios.mean()) - 1) < 4 * (2 / 256 / 60) ** 0.5 and float(ratios.max()) < 1.3
    assert read(y[:, 0]).shape == (20, 5000)  # (B, K) goes on as it is


def test_logits_of_a_large_vocabulary_keep_their_distances():
    torch.manual_seed(0)
    y, read = torch.randn(20, 3, 5000, dtype=torch.float64), FirstOrderEstimator().read
    other, mask = y + torch.randn_like(y), MASK[:1, :3].repeat(20, 1) & torch.tensor([True, True, False])
    for given in (None, mask):
        counts = 3 if given is None else 2
        before = (y - other)[:, :counts].square().sum((1, 2))
        ratios = (read(y, given) - read(other, given)).square().sum(1) / before
        assert read(y, given).shape == (20, 3 * 256)
        assert abs(float(ratios.mean()) - 1) < 4 * (2 / 256 / 20 / counts) ** 0.5
    assert torch.equal(read(y.mT[..., None]), read(y))  # (B, K, H, W)
    assert read(y[:, :1]).shape == read(y[:, 0]).shape == (20, 5000)  # one place: as it is


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("output", ["logits", "hellinger"])
def test_moments_of_padded_texts(estimator, output):
    """Of the last layer, in which the network is linear, the perturbation is that of the definition over the tokens that count."""
    model, estimator = Reader().double().eval(), dataclasses.replace(estimator, output=output)
    (batch,) = texts(1)
    mask = batch["attention_mask"].bool()
    _, factors = factors_of(model, Unblocked())
    found = estimator(model, factors, batch)[0]
    factor, moments = factors[-1], found[-1]
    with torch.no_grad():
        y = model(**batch)
        changed = y - slow_differences(lambda_of(model), factor, batch)
    if output == "logits":
        expected = ((changed - y).square().sum(3) * mask).sum(2).mean(1)
    else:
        expected = torch.stack([(slow(z, output, mask) - slow(y, output, mask)).square().sum(1).mean() for z in changed])
    if estimator.name == "exact":
        assert close(moments.second.sum(1), expected)
        return
    if output == "logits":  # 32 random combinations of the outputs
        assert float((moments.second.sum(1).sum() / expected.sum()).log().abs()) < 0.7
    more = estimator(model, factors, next(iter(texts(1, padding=6))))[0]
    assert all(close(a.second.sum(1), b.second.sum(1), 1e-8) for a, b in zip(found, more))


def lambda_of(model):
    """The network as ``slow_differences`` calls it."""

    class Called:
        get_submodule = staticmethod(model.get_submodule)

        def __call__(self, batch):
            return model(**batch)

    return Called()


def test_divergence_is_the_mean_over_tokens_that_count():
    dense, small = (Reader(seed).double().eval() for seed in (0, 1))
    batches = Batches.of(list(texts(3)))
    total = count = 0.0
    for batch in texts(3):
        with torch.no_grad():
            p, q = dense(**batch).softmax(2), small(**batch).softmax(2)
        for i, mask in enumerate(batch["attention_mask"].bool()):
            total += float((p[i] * (p[i] / q[i]).log()).sum(1)[mask].mean())
            count += 1
    assert divergence(dense, small, batches, FirstOrderEstimator()) == pytest.approx(total / count)
