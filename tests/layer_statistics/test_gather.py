"""Statistics of layers, against slow loops over images and outputs."""

import copy
import itertools

import pytest
import torch
from helpers import BLOCKINGS, close, flat, given_network, measured
from torch import nn
from torch.nn import functional as F

from lrp import shelf as shelf_module
from lrp.batches import Batches
from lrp.errors import InputError, NotUsable
from lrp.layer_statistics import combinations as combinations_module
from lrp.layer_statistics import gather as gather_module
from lrp.layer_statistics import sums as sums_module
from lrp.layer_statistics import watched as watched_module
from lrp.layer_statistics.gather import gather
from lrp.network.frozen import FrozenNetwork
from lrp.network.survey import find_candidates
from lrp.partition import cut


def unfold(module, x):
    """What a layer multiplies, (B, positions, groups, N), by loops."""
    if isinstance(module, nn.Linear):
        return x.reshape(len(x), -1, 1, x.shape[-1])
    pads = module._reversed_padding_repeated_twice
    x = F.pad(x, pads, mode="constant" if module.padding_mode == "zeros" else module.padding_mode)
    sizes = [(x.shape[2 + d] - module.dilation[d] * (k - 1) - 1) // module.stride[d] + 1 for d, k in enumerate(module.kernel_size)]
    rows = []
    for at in itertools.product(*map(range, sizes)):
        taps = []
        for tap in itertools.product(*map(range, module.kernel_size)):
            place = [p * s + t * d for p, s, t, d in zip(at, module.stride, tap, module.dilation)]
            taps.append(x[(slice(None), slice(None), *place)])
        rows.append(torch.stack(taps, 2).reshape(len(x), module.groups, -1))
    return torch.stack(rows, 1)


@torch.no_grad()
def calls(model, names, x):
    """Of each layer what it reads and gives."""
    seen = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _, args, output, name=name: seen.update({name: (args[0].clone(), output.clone())})
        )
        for name in names
    ]
    model(x)
    for handle in handles:
        handle.remove()
    return seen


@pytest.fixture(params=["narrow_vgg", "residual", "depthwise", "tokens", "chain"])
def network(request):
    return given_network(request, 5)


@pytest.mark.parametrize("samples", [1, 14, 10**6])
def test_inputs_and_outputs_are_what_the_layers_read_and_give(network, samples, monkeypatch):
    model, x = network
    monkeypatch.setattr(Batches, "unit", 2)
    monkeypatch.setattr(sums_module, "ROWS", 13)
    monkeypatch.setattr(sums_module, "PANEL", 4)
    candidates, found = measured(model, x, "inputs", "outputs", samples=samples)
    whole = measured(model, x, "products", samples=samples)[1]
    seen = calls(model, candidates.matrices, x)
    assert list(found) == list(candidates.matrices)
    for name, s in found.items():
        module, each = model.get_submodule(name), torch.arange(len(x))[:, None]
        rows = unfold(module, seen[name][0])
        linear = isinstance(module, nn.Linear)
        z = seen[name][1].reshape(len(x), -1, len(module.weight)) if linear else seen[name][1].flatten(2).mT
        assert s.where.shape == (len(x), min({1: 1, 14: 3}.get(samples, samples), rows.shape[1]))  # of 5 images
        assert all(len(set(at.tolist())) == len(at) for at in s.where)
        taken = rows[each, s.where].flatten(0, 1)
        assert close(s.inputs, torch.einsum("sgn,sgm->gnm", taken, taken) / len(taken))
        assert close(s.outputs, z[each, s.where]) and s.rows == len(module.weight) and s.gradients is None
        weight = module.weight.detach().flatten(1).unflatten(0, (rows.shape[2], -1))  # what was unfolded is what is multiplied
        product = torch.einsum("bpgn,gmn->bpgm", rows, weight).flatten(2)
        assert torch.allclose(product if module.bias is None else product + module.bias, z, atol=1e-9)
        matrix = candidates.matrices[name]
        for blocking in BLOCKINGS.values():  # the second moment of what a block gives
            for block in cut(blocking, {name: matrix}):
                group = block.row_start // (len(module.weight) // rows.shape[2])
                part = taken[:, group][:, block.columns] @ block.of(matrix.weight).T
                assert close(s.products(matrix.weight, block), part.T @ part / len(part))
                if block.shape[1] == matrix.shape[1]:
                    assert close(whole[name].products(matrix.weight, block), part.T @ part / len(part), 1e-8)


SIGNS = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])  # their average product is the identity


def test_gradients_are_those_of_every_output(network, monkeypatch):
    """Averaged over signs that are orthogonal, the estimate is the sum over all outputs, one by one and image by image; of few images no
    sign is drawn."""
    model, x = network
    x = x[:3]
    monkeypatch.setattr(Batches, "unit", 2)
    monkeypatch.setattr(watched_module, "shrunk", lambda G, samples: G)
    read = lambda y: y[:, :4]  # noqa: E731
    candidates = find_candidates(model, x[:1])
    exact, total = gather(model, candidates, x, ["gradients"], read), {}
    monkeypatch.setattr(combinations_module, "COMBINATIONS", 1)
    for signs in SIGNS:
        monkeypatch.setattr(torch, "randint", lambda low, high, shape, generator: ((signs[: shape[1]] + 1) / 2).expand(shape))
        found = gather(model, candidates, x, ["gradients"], read)
        for name, s in found.items():
            assert s.inputs is None and s.outputs is None
            total[name] = total.get(name, 0) + s.gradients / len(SIGNS)
    for name in list(total)[:: 4 if len(total) > 10 else 1]:
        module = model.get_submodule(name)
        G = torch.zeros(2 * [len(module.weight)]).double()
        for image in x:
            held = []

            def keep(_, args, output):
                held.append(output.detach().requires_grad_())
                return held[0].clone()

            handle = module.register_forward_hook(keep)
            y = read(model(image[None]))[0]
            handle.remove()
            for k in range(len(y)):
                g = torch.autograd.grad(y[k], held[0], retain_graph=True)[0][0]
                g = g.reshape(-1, g.shape[-1]).T if isinstance(module, nn.Linear) else g.flatten(1)
                G += g @ g.T
        assert close(total[name], G / len(x)) and close(exact[name].gradients, G / len(x))


def test_one_output_needs_no_signs(residual, monkeypatch):
    monkeypatch.setattr(watched_module, "shrunk", lambda G, samples: G)
    x = torch.randn(4, 3, 9, 8).double()
    candidates = find_candidates(residual, x[:1])
    G = gather(residual, candidates, x, ["gradients"], lambda y: y[:, 1:2])["fc"].gradients
    assert torch.equal(G, torch.diag(torch.tensor([0.0, 1, 0, 0]).double()))
    none = gather(residual, candidates, x, ["gradients"], lambda y: y[:, 1:2] * 0 + x.sum((1, 2, 3))[:, None])
    assert not any(s.gradients.any() for s in none.values())
    assert gather(residual, candidates, x, [], flat) == {}


def test_gradients_are_of_the_first_images(residual, monkeypatch):
    monkeypatch.setattr(Batches, "unit", 2)
    monkeypatch.setattr(gather_module, "GRADIENT_IMAGES", 4)
    x = torch.randn(7, 3, 9, 8).double()
    few, all_ = (measured(residual, images, "inputs", "gradients", "outputs")[1] for images in (x[:4], x))
    assert all(torch.equal(few[name].gradients, all_[name].gradients) and len(all_[name].outputs) == 7 for name in few)
    assert not torch.equal(few["fc"].inputs, all_["fc"].inputs)
    assert all(not s.outputs.requires_grad for s in all_.values())


@pytest.mark.parametrize("grad", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_network_stays_as_it_is(residual, grad):
    residual.train()
    residual.bn1.eval()
    residual.fc.weight.requires_grad_(False)
    residual.conv1.weight.grad = torch.ones_like(residual.conv1.weight)
    x = torch.randn(4, 3, 9, 8).double()
    before, modes, images = copy.deepcopy(residual), [m.training for m in residual.modules()], x.clone()
    with grad():
        _, found = measured(residual, x, "inputs", "gradients", "outputs")
    assert all(s.gradients.any() for s in found.values())
    assert [m.training for m in residual.modules()] == modes and torch.equal(x, images)
    assert all(torch.equal(before.state_dict()[k], v) for k, v in residual.state_dict().items())
    for (name, p), q in zip(residual.named_parameters(), before.parameters()):
        assert p.requires_grad == q.requires_grad and (p.grad is None) == (name != "conv1.weight")
    assert not any(m._forward_hooks for m in residual.modules()) and residual.relu.inplace
    assert not any(t.requires_grad for s in found.values() for t in (s.inputs, s.gradients, s.outputs))
    again = measured(residual.eval(), x, "inputs", "gradients")[1]
    assert all(torch.equal(found[k].gradients, again[k].gradients) and torch.equal(found[k].inputs, again[k].inputs) for k in found)


class Mixed(nn.Module):
    """A layer that reads some of all rows."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, x):
        return self.fc(x.flatten(0, 1)[: 2 * len(x) + 1]).square().sum() + x.flatten(1)


class Again(nn.Module):
    """Layers that run several times."""

    def __init__(self):
        super().__init__()
        self.fc, self.conv, self.last = nn.Linear(3, 3), nn.Conv1d(2, 2, 3, padding=1), nn.Linear(6, 2)

    def forward(self, x):
        for _ in range(3):
            x = self.conv(torch.tanh(self.fc(x)))
        return self.last(x.flatten(1))


@pytest.mark.parametrize("kind, shape", [(Mixed, (5, 5, 3)), (Again, (5, 2, 3))])
def test_rows_that_belong_to_no_image(kind, shape, monkeypatch):
    """All calls of a layer count, and all rows of each: C, the mean, and G of the random combination of the outputs."""
    model, x = kind().double(), torch.randn(*shape).double()
    monkeypatch.setattr(combinations_module, "COMBINATIONS", 1)
    monkeypatch.setattr(watched_module, "shrunk", lambda G, samples: G)
    _, found = measured(model, x, "outputs", "gradients")
    seen = {name: ([], []) for name in found if name != "last"}

    def look(name, args, z):
        z.retain_grad()
        seen[name][0].append(unfold(model.get_submodule(name), args[0].detach()).flatten(0, -3))
        seen[name][1].append(z)

    for name in seen:
        model.get_submodule(name).register_forward_hook(lambda module, args, z, name=name: look(name, args, z))
    y = model(x).flatten(1)
    signs = 2 * torch.randint(0, 2, y.shape, generator=torch.Generator().manual_seed(0)) - 1
    (y * signs).sum().backward()
    for name, (inputs, outputs) in seen.items():
        rows = torch.cat(inputs)[:, 0]
        assert found[name].outputs is None and found[name].where is None
        assert close(found[name].inputs[0], rows.T @ rows / len(rows)) and close(found[name].mean[0], rows.mean(0))
        grads = torch.cat([z.grad.movedim(1, -1).reshape(-1, 2) if name == "conv" else z.grad.flatten(0, -2) for z in outputs])
        assert close(found[name].gradients, grads.T @ grads / len(x))


def test_what_cannot_be_measured_is_named(residual):
    class Never(Mixed):
        def forward(self, x):
            return (self.fc(x) if len(x) == 1 else x).flatten(1)

    with pytest.raises(NotUsable, match="^layer fc: it does not run on any batch of calibration examples; decomposition=svd"):
        measured(Never(), torch.randn(4, 5, 3), "inputs")
    x = torch.randn(3, 3, 9, 8).double()
    x[1, 0, 0, 0] = torch.inf
    with pytest.raises(InputError, match="^layer stem: its inputs or gradients on the calibration images are not finite"):
        measured(residual, x, "inputs")


def test_a_limit_of_memory_changes_rounding_alone(residual, monkeypatch):
    """Of one example and one layer at a time there are the same statistics as of all together, in a file or not."""
    x, needs = torch.randn(5, 3, 9, 8).double(), ["inputs", "products", "gradients", "outputs", "magnitudes"]
    candidates, ran = find_candidates(residual, x[:1]), []
    inner = gather_module._gather
    monkeypatch.setattr(gather_module, "_gather", lambda *given: ran.append((given[2], given[-3])) or inner(*given))
    whole = gather(residual, candidates, x, needs, flat)
    monkeypatch.setattr(shelf_module, "KEPT", 0)
    few = gather(residual, candidates, x, needs, flat, memory=1.0)
    assert ran == [([*candidates.matrices], 128), *(([name], 1) for name in candidates.matrices)]
    for name, expected in whole.items():
        assert isinstance(vars(few[name])["inputs"], shelf_module.Stored) and isinstance(vars(few[name])["outputs"], shelf_module.Joined)
        for what in ("inputs", "zz", "gradients", "magnitudes", "mean", "outputs", "where"):
            assert close(getattr(few[name], what).double(), getattr(expected, what).double()), (name, what)


def test_a_network_is_measured_where_its_numbers_are(residual):
    """But for one whose forward writes into its parameters."""
    x, before = torch.randn(3, 3, 9, 8).double(), copy.deepcopy(residual.state_dict())
    shared = FrozenNetwork(residual, x[:1], share=not find_candidates(residual, x[:1]).writes)
    assert shared.modules["fc"].weight.data_ptr() == residual.fc.weight.data_ptr() and not shared.modules["fc"].weight.requires_grad
    assert all(parameter.requires_grad for parameter in residual.parameters())
    assert all(map(torch.equal, before.values(), residual.state_dict().values()))

    class Bounded(nn.Linear):
        def forward(self, x):
            self.weight.data.clamp_(-0.1, 0.1)
            return super().forward(x)

    ids = torch.tensor([[1, 2]])
    assert find_candidates(nn.Sequential(Bounded(12, 12), nn.Linear(12, 2)), torch.randn(1, 12)).writes
    assert find_candidates(nn.Sequential(nn.Embedding(4, 12, max_norm=9.0), nn.Linear(12, 2)), ids).writes
    assert not find_candidates(nn.Sequential(nn.Embedding(4, 12), nn.Linear(12, 2)), ids).writes
