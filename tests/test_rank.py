"""Layers held at a rank while a network trains, and the studies that train them: against numpy and plain loops."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lrp
from lrp.blocking.alds import AldsBlocking
from lrp.blocking.square import SquareBlocking
from lrp.dataset.base import Data, Part
from lrp.decomposition.base import decompose
from lrp.layer.base import LowRank
from lrp.layer.build import build, layer_matrices
from lrp.layer.hold_rank import at_rank, hold_rank
from lrp.matrices import cut
from lrp.study import rank_switch
from lrp.study.dim_rank import DimRank
from lrp.study.job import Place
from lrp.study.networks import SwitchNet
from lrp.study.rank_switch import RankSwitch

LAYERS = {
    "linear": (lambda: nn.Linear(9, 7), (9,)),
    "linear, wide, no bias": (lambda: nn.Linear(20, 6, bias=False), (20,)),
    "conv": (lambda: nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 7, 6)),
    "grouped": (lambda: nn.Conv2d(6, 10, 3, padding=1, groups=2), (6, 5, 5)),
    "1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (4, 9)),
}  # the smallest full rank, that of a group of "grouped", is 5


def make(name):
    """(a dense layer, inputs), float64"""
    layer, shape = LAYERS[name]
    return layer().double(), torch.randn(4, *shape, dtype=torch.float64)


def group_matrices(layer):
    """The matrix of each group of a layer, low-rank or dense, as numpy arrays."""
    weight = layer.weight.detach().flatten(1).numpy()
    return np.split(weight, getattr(layer, "groups", 1))


def full_rank(layer):
    return min(min(matrix.shape) for matrix in group_matrices(layer))


def as_dense(low, dense):
    """The dense layer with the weight and the bias of ``low``."""
    twin = copy.deepcopy(dense)
    twin.weight.data = low.weight.detach().clone()
    if twin.bias is not None:
        twin.bias.data = low.bias.detach().clone()
    return twin


def sgd(layer, x, target, steps=1, lr=0.05):
    optimizer = torch.optim.SGD(layer.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        F.mse_loss(layer(x), target).backward()
        optimizer.step()


def assert_close(a, b, atol=1e-10):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def refused(call, *parts):
    """One sentence that holds all these words."""
    with pytest.raises(lrp.InputError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text and len(text) < 300
    assert all(part in text for part in parts), text


# The layer


@pytest.mark.parametrize("init", ["svd", "glorot"])
@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_training_does_not_raise_the_rank(name, rank, init):
    dense, x = make(name)
    layer = at_rank(dense, rank, init)
    before = layer.weight.detach().clone()
    sgd(layer, x, torch.randn_like(layer(x).detach()), steps=5, lr=0.5)
    assert (layer.weight - before).abs().max() > 1e-3
    assert [np.linalg.matrix_rank(matrix) for matrix in group_matrices(layer)] == [rank] * getattr(dense, "groups", 1)
    assert_close(layer(x), as_dense(layer, dense)(x))


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("name", LAYERS)
def test_the_truncation_is_the_best_one(name, rank):
    """Eckart and Young, of each group; the factors share the singular values evenly. Directly and after a higher rank."""
    dense, _ = make(name)
    again = at_rank(dense, 5)
    again.set_rank(rank)
    for layer in (at_rank(dense, rank), again):
        values = []
        for matrix, truncated in zip(group_matrices(dense), group_matrices(layer), strict=True):
            S = np.linalg.svd(matrix, compute_uv=False)
            expected = (S[rank:] ** 2).sum() if layer is not again else (S[rank:5] ** 2).sum() + (S[5:] ** 2).sum()
            assert expected > 1e-3
            assert np.linalg.norm(matrix - truncated) ** 2 == pytest.approx(expected, rel=1e-9)
            values.append(S[:rank])
        for U, V, S in zip(layer.U.values(), layer.V.values(), values, strict=True):
            np.testing.assert_allclose(U.detach().square().sum(0), S, rtol=1e-9)
            np.testing.assert_allclose(V.detach().square().sum(1), S, rtol=1e-9)


@pytest.mark.parametrize("grow", ["orthogonal", "svd"])
@pytest.mark.parametrize("start", [-1, 2, "full"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_higher_rank_keeps_the_function(name, start, grow):
    dense, x = make(name)
    full = full_rank(dense)
    layer = at_rank(dense, full if start == "full" else start)
    if start != 2:
        assert_close(layer(x), dense(x))
    y = layer(x).detach()
    steps = [full, -1, full] if start == -1 else [2, 3, full, full, -1, full] if start == 2 else [full, -1]
    for rank in steps:
        layer.set_rank(rank, grow)
        assert_close(layer(x), y)
        assert [held for _, held in layer.blocks] == [None if rank == -1 else rank] * len(layer.blocks)
        assert (len(layer.U), len(layer.W)) == ((0, len(layer.blocks)) if rank == -1 else (len(layer.blocks), 0))
        assert layer.bias is None or torch.equal(layer.bias, dense.bias)
        assert {p.dtype for p in layer.parameters()} == {torch.float64} and all(p.requires_grad for p in layer.parameters())


@pytest.mark.parametrize("name", LAYERS)
def test_orthogonal_growth_learns_at_once(name):
    dense, x = make(name)
    layer = at_rank(dense, 2)
    layer.set_rank(4, "orthogonal", torch.Generator().manual_seed(3))
    eye = torch.eye(2, dtype=torch.float64)
    for U, V in zip(layer.U.values(), layer.V.values(), strict=True):
        assert torch.equal(U[:, 2:], torch.zeros_like(U[:, 2:])) and bool(U[:, :2].any(0).all())
        assert_close(V[2:] @ V[2:].T, eye, 1e-12)
        assert_close(V[2:] @ V[:2].T, torch.zeros_like(eye), 1e-12)
    twin, other = at_rank(dense, 2), at_rank(dense, 2)
    twin.set_rank(4, "orthogonal", torch.Generator().manual_seed(3))
    other.set_rank(4, "orthogonal", torch.Generator().manual_seed(4))
    assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), twin.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(layer.V.values(), other.V.values(), strict=True))
    assert {np.linalg.matrix_rank(matrix) for matrix in group_matrices(layer)} == {2}
    sgd(layer, x, torch.randn_like(layer(x).detach()))
    assert min(np.linalg.matrix_rank(matrix) for matrix in group_matrices(layer)) > 2


@pytest.mark.parametrize("name", LAYERS)
def test_svd_growth_starts_at_rounding(name):
    layer = at_rank(make(name)[0].float(), 2)
    before = layer.weight.detach().clone()
    layer.set_rank(4, "svd")
    assert_close(layer.weight, before, 1e-5)
    for U, V in zip(layer.U.values(), layer.V.values(), strict=True):
        assert 0 <= U[:, 2:].abs().max() < 1e-2 * U.abs().max()
        assert 0 <= V[2:].abs().max() < 1e-2 * V.abs().max()


def test_growth_from_a_dense_matrix_of_low_rank():
    """The matrix, not what was stored, says what rank there is; also where it is zero."""
    dense, _ = make("linear")
    for rank in (2, 0):
        dense.weight.data = torch.randn(7, rank, dtype=torch.float64) @ torch.randn(rank, 9, dtype=torch.float64)
        layer = at_rank(dense, 6)
        assert_close(layer.weight, dense.weight)
        assert not layer.U["0"][:, rank:].any() and bool(layer.U["0"][:, :rank].any(0).all())
        V = layer.V["0_0"][rank:]
        assert_close(V @ V.T, torch.eye(6 - rank, dtype=torch.float64), 1e-12)


def test_glorot_initialisation():
    dense = nn.Linear(300, 200)
    layers = [at_rank(dense, 40, "glorot", torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    for factor, again, other, ends in zip(*[[layer.U["0"], layer.V["0_0"]] for layer in layers], [240, 340]):
        bound = (6 / ends) ** 0.5
        assert 0.99 * bound < factor.abs().max() <= bound
        assert float(factor.detach().var()) == pytest.approx(2 / ends, rel=0.05)
        assert torch.equal(factor, again) and not torch.equal(factor, other)
    assert torch.equal(layers[0].bias, dense.bias) and layers[0].bias is not dense.bias
    matrix = at_rank(dense, -1, "glorot").W["0_0"]
    assert float(matrix.detach().var()) == pytest.approx(2 / 500, rel=0.05) and matrix.abs().max() <= (6 / 500) ** 0.5


def test_one_step_by_hand():
    """dL/dU = G V^T and dL/dV = U^T G, with G = dL/dW of the mean squared error."""
    dense, x = make("linear")
    layer, target, lr = at_rank(dense, 3), torch.randn(4, 7, dtype=torch.float64), 0.3
    U, V, b = (p.detach().numpy().copy() for p in (layer.U["0"], layer.V["0_0"], layer.bias))
    sgd(layer, x, target, lr=lr)
    error = 2 / target.numel() * (x.numpy() @ (U @ V).T + b - target.numpy())
    G = error.T @ x.numpy()
    steps = [(layer.U["0"], U, G @ V.T), (layer.V["0_0"], V, U.T @ G), (layer.bias, b, error.sum(0))]
    for after, before, gradient in steps:
        np.testing.assert_allclose(after.detach().numpy(), before - lr * gradient, rtol=0, atol=1e-13)
        assert np.abs(gradient).max() > 1e-3


@pytest.mark.parametrize("grow", ["orthogonal", "svd"])
@pytest.mark.parametrize("blocking", [SquareBlocking(4), AldsBlocking(4)], ids=lambda b: b.name)
@pytest.mark.parametrize(
    ("dense", "shape"), [(nn.Linear(24, 8), (24,)), (nn.Conv2d(8, 6, 3, groups=2, padding=1), (8, 5, 5))], ids=["linear", "grouped"]
)
def test_layers_of_many_blocks(dense, shape, blocking, grow):
    """Blocks at rank 1, one without components and one whole grow to full rank and become dense; the function stays."""
    model = nn.Sequential(copy.deepcopy(dense)).double()
    matrices = layer_matrices(model)
    factors = decompose(matrices, cut(blocking, matrices))
    assert len(factors) > 2
    keep = [torch.arange(f.block.rank) < 1 for f in factors]
    keep[0][:], keep[-1][:] = False, True
    for f, mask in zip(factors, keep):
        mask[:] |= f.block.is_dense(int(mask.sum()))
    layer = build(model, factors, keep)[0]
    assert isinstance(layer, LowRank) and {0, 1, None} <= {held for _, held in layer.blocks}
    x = torch.randn(2, *shape, dtype=torch.float64)
    y, full = layer(x).detach(), min(block.rank for block, _ in layer.blocks)
    assert full == max(block.rank for block, _ in layer.blocks) > 1
    for rank in (full, -1, full):
        layer.set_rank(rank, grow)
        assert_close(layer(x), y)
        assert {held for _, held in layer.blocks} == {None if rank == -1 else rank}
    layer(x).square().sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


@pytest.mark.parametrize("rank", [2, 4, 8, -1])
def test_round_trip_after_a_switch(rank, tmp_path):
    """Also at full rank, where the factors are larger than the matrix."""

    def network():
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 9, 10), nn.Linear(10, 4))

    model = hold_rank(network(), {"0": 3, "3": 3}).eval()
    model[0].set_rank(rank)
    model[3].set_rank(rank)
    x = torch.randn(2, 3, 5, 5)
    lrp.save(model, tmp_path / "a.safetensors")
    loaded = lrp.load(tmp_path / "a.safetensors", network)
    assert torch.equal(loaded(x), model(x))
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert [held for _, held in loaded[3].blocks] == [held for _, held in model[3].blocks] == [None if rank == -1 else rank]
    loaded[3].set_rank(10)  # and goes on from there
    assert_close(loaded(x), model(x), 1e-5)


# The network


def test_hold_rank_replaces_and_switches():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    x, last = torch.randn(3, 6, dtype=torch.float64), model[2]
    y = model(x).detach()
    assert hold_rank(model, {"0": 6}) is model and isinstance(model[0], LowRank) and model[2] is last
    assert_close(model(x), y)
    low = model[0]
    hold_rank(model, {"0": 2, "2": -1})
    assert model[0] is low and [held for _, held in low.blocks] == [2] and [held for _, held in model[2].blocks] == [None]
    assert np.linalg.matrix_rank(low.weight.detach().numpy()) == 2
    alone = hold_rank(nn.Linear(3, 3), {"": 1})
    assert isinstance(alone, LowRank)


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ({"0": 2, "nothing": 2}, ["layer=nothing"]),
        ({"0": 2, "2": 5}, ["rank=5", "from 1 to 4"]),
        ({"0": 2, "1": 2}, ["layer=ReLU"]),
        ({"2": 2, "3": 9}, ["rank=9", "from 1 to 4"]),
    ],
)
def test_hold_rank_leaves_a_network_that_it_refuses(ranks, words):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), at_rank(nn.Linear(4, 4), 3))
    modules, before = list(model.modules()), copy.deepcopy(model.state_dict())
    refused(lambda: hold_rank(model, ranks), *words)
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert list(before) == list(model.state_dict()) and all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("rank", [0, -2, 6, 2.0, 1.5, True, None, "2"])
def test_a_rank_that_a_layer_cannot_have(rank):
    dense = nn.Linear(9, 5)
    layer = at_rank(dense, 3)
    before, shown = copy.deepcopy(layer.state_dict()), f"rank={'null' if rank is None else rank}"
    for call in (lambda: at_rank(dense, rank), lambda: at_rank(dense, rank, "glorot"), lambda: layer.set_rank(rank)):
        refused(call, shown, "from 1 to 5")
    assert list(before) == list(layer.state_dict()) and all(torch.equal(before[k], v) for k, v in layer.state_dict().items())


def test_options_and_layers_that_are_refused():
    dense = nn.Linear(9, 5)
    refused(lambda: at_rank(dense, 2, "foo"), "init=foo", "svd or glorot")
    refused(lambda: at_rank(dense, 2).set_rank(3, "foo"), "grow=foo", "orthogonal or svd")
    refused(lambda: at_rank(nn.Conv2d(4, 4, 3, groups=4), 1), "layer=Conv2d", "depthwise")
    refused(lambda: at_rank(nn.ReLU(), 1), "layer=ReLU")
    refused(lambda: at_rank(nn.Conv2d(6, 10, 3, groups=2), 6), "rank=6", "from 1 to 5")  # the rank is a group's


# The studies


def made_data(train=144, held_out=16, test=64):
    """Noise of uint8, in which the first channel's brightness tells something of the class."""
    generator = torch.Generator().manual_seed(0)

    def part(count, index):
        labels = torch.randint(10, (count,), generator=generator)
        images = torch.randint(128, (count, 3, 32, 32), generator=generator)
        images[:, 0] += 12 * labels[:, None, None]
        return Part(images.to(torch.uint8), labels, index)

    order = torch.randperm(train + held_out, generator=generator)
    parts = part(train, order[:train]), part(held_out, order[train:]), part(test, torch.arange(test))
    return Data("made", *parts, (0.5,) * 3, (0.25,) * 3, 0, False, 10)


@pytest.fixture(scope="module")
def data():
    return made_data()


SEED, LR, EPOCHS = 5, 0.01, 3
CELL = {"rank_before": 2, "rank_after": -1, "switch_epoch": 2}


def switch_study(**options):
    ranks = {"train_ranks": [2], "switch_ranks": [-1], "switch_epochs": [1, 2]}
    return RankSwitch(**(ranks | {"width": 1 / 64, "images": 128, "epochs": EPOCHS, "batch_size": 32, "lr": LR} | options))


def place(data, folder):
    return Place(data, SEED, torch.device("cpu"), folder)


def plain_loop(data, before, after, switch):
    """(accuracies, losses, the accuracy right after the switch), written without the study's parts."""
    index = torch.cat([data.train.index, data.validation.index])
    images = torch.cat([data.train.images, data.validation.images])[index.argsort()]
    labels = torch.cat([data.train.labels, data.validation.labels])[index.argsort()]
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:128]
    images, labels = images[chosen], labels[chosen]

    def prepared(batch):
        return (batch.float() / 255).contiguous(memory_format=torch.channels_last)

    def test():
        with torch.no_grad():
            return float((model(prepared(data.test.images)).argmax(1) == data.test.labels).double().mean())

    torch.manual_seed(SEED)
    model = SwitchNet(3, 10, 1 / 64)
    model.hidden = at_rank(model.hidden, before, "glorot", torch.Generator().manual_seed(SEED))
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), LR)
    accuracies, losses, at_switch = [], [], None
    for epoch in range(EPOCHS):
        if switch and epoch == switch:
            model.hidden.set_rank(after, "svd")
            optimizer = torch.optim.Adam(model.parameters(), LR)
            at_switch = test()
        total = 0.0
        for batch in torch.randperm(128, generator=torch.Generator().manual_seed(1_000_003 * SEED + epoch)).split(32):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(prepared(images[batch])), labels[batch])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        losses.append(total / 128)
        accuracies.append(test())
    return accuracies, losses, at_switch


@pytest.fixture(scope="module")
def expected(data):
    torch.manual_seed(0)
    return plain_loop(data, 2, -1, 2)


def same(found, expected):
    row, details = found
    accuracies, losses, at_switch = expected
    assert list(details["accuracy"]) == accuracies and list(details["loss"]) == losses  # bit for bit
    assert list(details["epoch"]) == [1, 2, 3]
    assert (row["accuracy"], row["loss"], row["accuracy_at_switch"]) == (accuracies[-1], losses[-1], at_switch)
    switch = row["switch_epoch"]
    assert row["accuracy_best_after_switch"] == max(accuracies[switch:])
    assert row["accuracy_before_switch"] == (accuracies[switch - 1] if switch else None)


def test_branches_are_plain_trainings(data, expected, tmp_path):
    """All cells in one folder, which share what was trained before the switch, and each in a folder of its own."""
    study, shared = switch_study(), place(data, tmp_path / "shared")
    cells = study.cells()
    assert [tuple(cell.values()) for cell in cells] == [(2, 2, 0), (2, -1, 1), (2, -1, 2)]
    losses = []
    for i, cell in enumerate(cells):
        plain = expected if cell == CELL else plain_loop(data, *cell.values())
        for folder in (shared, place(data, tmp_path / str(i))):
            row, details = study.run(cell, folder)
            same((row, details), plain)
            assert row["units"] == 4 and row["params_hidden"] == (2 * (32 + 4) if cell["rank_after"] == 2 else 32 * 4) + 4
        losses.append(plain[1])
    assert losses[0][:2] == losses[2][:2] and losses[0][2] != losses[2][2]
    assert losses[0][0] == losses[1][0] and losses[0][1] != losses[1][1]  # the switch does something
    study.finish(shared)
    assert not list(shared.folder.rglob("*.pt"))


def test_what_is_stored_is_used(data, tmp_path, monkeypatch):
    """The second cell trains only what comes after its switch."""
    study, here, epochs = switch_study(), place(data, tmp_path), []
    real = rank_switch.train_epoch

    def counted(model, part, optimizer, batch_size, seed, epoch, progress):
        epochs.append(epoch)
        return real(model, part, optimizer, batch_size, seed, epoch, progress)

    monkeypatch.setattr(rank_switch, "train_epoch", counted)
    for cell in study.cells():
        study.run(cell, here)
    assert epochs == [0, 1, 2, 1, 2, 2]


@pytest.mark.parametrize("keep", ["rank2-latest.pt", "rank2-epoch1.pt", "rank2-epoch2.pt", "nothing"])
def test_a_killed_job_goes_on(keep, data, expected, tmp_path):
    """Whatever one state is left, the result is the same."""
    study, here = switch_study(), place(data, tmp_path)
    study.run({**CELL, "switch_epoch": 1}, here)
    study.run(CELL, here)
    files = {file.name for file in tmp_path.rglob("*.pt")}
    assert files == {"rank2-latest.pt", "rank2-epoch1.pt", "rank2-epoch2.pt"}
    for file in tmp_path.rglob("*.pt"):
        if file.name != keep:
            file.unlink()
    same(study.run(CELL, here), expected)


@pytest.mark.parametrize("how", ["truncated", "empty", "noise"])
@pytest.mark.parametrize("name", ["rank2-latest.pt", "rank2-epoch2.pt", "*.pt"])
def test_damaged_states_cost_only_time(name, how, data, expected, tmp_path):
    study, here = switch_study(), place(data, tmp_path)
    study._prefix(2, 2, rank_switch.some(data.undivided(), 128, "study.images"), here)
    files = list((tmp_path / "states").glob(name))
    assert files
    for file in files:
        content = file.read_bytes()
        file.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "noise": bytes(range(256)) * 20}[how])
    same(study.run(CELL, here), expected)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_kill_in_any_epoch(at, data, expected, tmp_path, monkeypatch):
    study, here, real = switch_study(), place(data, tmp_path), rank_switch.train_epoch

    def killed(model, part, optimizer, batch_size, seed, epoch, progress):
        loss = real(model, part, optimizer, batch_size, seed, epoch, progress)
        if epoch == at:
            raise KeyboardInterrupt
        return loss

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rank_switch, "train_epoch", killed)
        study.run(CELL, here)
    same(study.run(CELL, here), expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"switch_epochs": [1, 3]}, ["study.switch_epochs=3", "study.epochs=3"]),
        ({"switch_epochs": [4]}, ["study.switch_epochs=4"]),
        ({"switch_epochs": [0]}, ["study.switch_epochs=0"]),
        ({"switch_epochs": [1.5]}, ["study.switch_epochs=1.5"]),
        ({"switch_epochs": [1, 1]}, ["study.switch_epochs=[1, 1]", "each once"]),
        ({"switch_epochs": 1}, ["study.switch_epochs=1"]),
        ({"train_ranks": []}, ["study.train_ranks=[]"]),
        ({"train_ranks": [0]}, ["study.train_ranks=0", "from 1 to 4"]),
        ({"train_ranks": [5]}, ["study.train_ranks=5", "from 1 to 4"]),
        ({"switch_ranks": [-2]}, ["study.switch_ranks=-2"]),
        ({"switch_ranks": [True]}, ["study.switch_ranks=True"]),
        ({"switch_ranks": [2.0]}, ["study.switch_ranks=2.0"]),
        ({"grow": "foo"}, ["study.grow=foo"]),
        ({"width": 0}, ["study.width=0"]),
        ({"lr": 0}, ["study.lr=0"]),
        ({"images": 0}, ["study.images=0"]),
        ({"batch_size": 0}, ["study.batch_size=0"]),
    ],
)
def test_rank_switch_refuses(options, words):
    refused(lambda: switch_study(**options), *words)


def test_too_many_images_are_refused(data, tmp_path):
    refused(lambda: switch_study(images=161).run(CELL, place(data, tmp_path)), "study.images=161", "160")


DIMS, RANKS = [10, 20, 50, 100, 200, 500], [-1, 5, 10, 20, 50, 100, 200, 500]


def test_dim_rank_cells():
    """Those of the paper's figure: every rank up to dim, and the dense matrix."""
    cells = DimRank(DIMS, RANKS, epochs=1, batch_size=64, lr=1e-3).cells()
    assert len(cells) == len({tuple(cell.values()) for cell in cells}) == 33
    assert {dim: sum(cell["dim"] == dim for cell in cells) for dim in DIMS} == dict(zip(DIMS, [3, 4, 5, 6, 7, 8]))
    assert all(cell["rank"] <= cell["dim"] for cell in cells)
    assert [cell["dim"] for cell in cells if cell["rank"] == -1] == DIMS


@pytest.mark.parametrize(("rank", "hidden"), [(-1, 3072 * 6), (6, 6 * (3072 + 6)), (2, 2 * (3072 + 6))])
def test_dim_rank_counts_what_it_trains(rank, hidden, data, tmp_path):
    """A rank that equals dim is two factors all the same; -1 is one matrix."""
    study = DimRank([6], [-1, 2, 6], epochs=2, batch_size=32, lr=0.01)
    row, details = study.run({"dim": 6, "rank": rank}, place(data, tmp_path))
    assert row["params_hidden"] == hidden + 6 and row["params"] == hidden + 6 + 6 * 10 + 10
    assert set(row) == set(study.columns) and list(details["epoch"]) == [1, 2]
    assert row["loss"] == details["loss"].iloc[-1] != details["loss"].iloc[0]
    again, _ = study.run({"dim": 6, "rank": rank}, place(data, tmp_path))
    assert again == row


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dims": [0]}, ["study.dims=0"]), ({"dims": 5}, ["study.dims=5"]), ({"dims": [5, 5]}, ["study.dims=[5, 5]"]),
        ({"ranks": [0]}, ["study.ranks=0"]), ({"ranks": [-2]}, ["study.ranks=-2"]), ({"ranks": [7]}, ["study.ranks=[7]", "at most study.dims=[4, 6]"]),
        ({"ranks": [True]}, ["study.ranks=True"]), ({"ranks": [1.5]}, ["study.ranks=1.5"]), ({"epochs": 0}, ["study.epochs=0"]),
        ({"lr": -1}, ["study.lr=-1"]),
    ],
)  # fmt: skip
def test_dim_rank_refuses(options, words):
    settings = {"dims": [4, 6], "ranks": [-1, 2], "epochs": 1, "batch_size": 32, "lr": 0.01}
    refused(lambda: DimRank(**(settings | options)), *words)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_components(dtype):
    """A truncation in half precision is the truncated SVD to that precision, whatever the size."""
    dense = nn.Linear(300, 200).to(dtype)
    layer = at_rank(dense, 50)
    U, S, Vh = torch.linalg.svd(dense.weight.double())
    best = U[:, :50] * S[:50] @ Vh[:50]
    error = (layer.weight_matrix().double() - best).norm() / best.norm()
    assert layer.U["0"].dtype == dtype and error < 0.02


def test_a_diverged_layer_is_refused_and_left():
    layer = at_rank(nn.Linear(6, 5), 3)
    with torch.no_grad():
        layer.U["0"][0, 0] = float("nan")
    before = layer.U["0"]
    with pytest.raises(lrp.InputError, match="not finite"):
        layer.set_rank(2)
    assert layer.U["0"] is before
