"""Networks without some of their filters, against the networks in which these filters are zero."""

import copy

import pytest
import torch
from cases import Depthwise, Residual, Tokens, Untraceable
from helpers import randomise
from torch import nn
from torch.nn import functional as F

from lrp.batches import Batches
from lrp.cost.count import count_params
from lrp.errors import InputError
from lrp.layer.build import find_kind, kind_of
from lrp.network.channels import find_channels
from lrp.network.narrow import narrow


class Plain(nn.Module):
    """No padding, so that every constant is one everywhere; flatten before a Linear."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 5, 2, stride=2, bias=False), nn.BatchNorm2d(5)
        self.conv3 = nn.Conv2d(5, 4, 1, bias=False)
        self.fc1, self.fc2 = nn.Linear(36, 7), nn.Linear(7, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2, 1)
        x = self.conv3(F.relu(self.bn2(self.conv2(x))) + 1)
        return self.fc2(torch.tanh(self.fc1(F.gelu(x).flatten(1))))


class Joined(nn.Module):
    """Sums over two blocks, a concatenation, a gate of each channel, a layer that is called twice, one pooled by its shape."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.a, self.b, self.twice = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 4, 1), nn.Conv2d(6, 6, 1)
        self.down, self.up = nn.Linear(10, 3), nn.Linear(3, 10)
        self.last = nn.Conv2d(10, 4, 1)

    def forward(self, x):
        x = F.relu(self.bn(self.stem(x)))
        x = x + self.a(x)
        x = self.twice(torch.relu(self.twice(x)))
        x = torch.cat([x, self.b(x)], 1)
        x = x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))[:, :, None, None]
        x = self.last(x)
        return x.view(x.size(0), -1)


def zeroed(model, keep):
    """The slow way: rows of zeros."""
    twin = copy.deepcopy(model)
    for name, mask in keep.items():
        layer = twin.get_submodule(name)
        layer.weight.data[~mask] = 0
    return twin


def masks(model, seed=0, without=(), share=0.5):
    generator = torch.Generator().manual_seed(seed)
    layers = {name: m for name, m in model.named_modules() if find_kind(m) is not None and name not in without}
    rows = {name: torch.rand(kind_of(m).rows(m), generator=generator) for name, m in layers.items()}
    return {name: (values > share) | (values == values.max()) for name, values in rows.items()}


def close(a, b):
    return torch.allclose(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_a_chain_computes_what_it_computes_with_zeros(seed):
    """Constants behind batch norm and ReLU go into biases, or where there is none into the batch norm behind."""
    model, x = randomise(Plain(), seed), torch.randn(5, 3, 10, 10).double()
    keep = masks(model, seed, without=["fc2"])
    found = narrow(model, x[:1], keep)
    assert close(found.model(x), zeroed(model, keep)(x)) and not found.moved and not found.zeroed
    for name, mask in keep.items():
        if name in found.rows:
            assert found.rows[name].tolist() == mask.nonzero()[:, 0].tolist(), "all that was asked for is gone"
    assert found.model.conv1.out_channels == found.model.bn1.num_features == found.model.conv2.in_channels == int(keep["conv1"].sum())
    assert found.model.fc1.in_features == 9 * int(keep["conv3"].sum())
    assert count_params(found.model) < count_params(model) and found.model.conv2.bias is None


def test_a_filter_that_everything_it_meets_loses_goes_from_all_of_it():
    model, x = randomise(Joined()), torch.randn(4, 3, 3, 3).double()
    mask = torch.tensor([True, False, True, True, False, True])
    one = {"stem": mask}
    found = narrow(model, x[:1], one)
    assert not found.rows and found.zeroed["stem"][0] == 2 and close(found.model(x), zeroed(model, one)(x))
    whole = {
        "stem": mask,
        "a": mask,
        "twice": mask,
        "b": torch.arange(4) > 0,
        "up": torch.cat([mask, torch.arange(4) > 0]),
        "down": torch.arange(3) > 1,
    }
    assert set(narrow(model, x[:1], whole).moved) == {"twice"}, "its two calls read two constants"
    model.bn.bias.data -= 9
    for layer in (model.a, model.twice):
        layer.bias.data.zero_()
    found = narrow(model, x[:1], whole)
    assert close(found.model(x), zeroed(model, whole)(x)) and not found.zeroed and not found.moved
    sizes = {name: tuple(m.weight.shape[:2]) for name, m in found.model.named_modules() if find_kind(m) is not None}
    assert sizes == {"stem": (4, 3), "a": (4, 4), "b": (3, 4), "twice": (4, 4), "down": (1, 7), "up": (7, 1), "last": (4, 7)}


def test_sums_with_padding_are_off_only_next_to_it():
    model, x = randomise(Residual()), torch.randn(2, 3, 9, 8).double()
    both = torch.arange(8) % 3 > 0
    keep = {"conv1": torch.arange(8) > 2, "conv2": both, "short": both, "stem": torch.arange(6) != 3}
    found = narrow(model, x[:1], keep)
    assert (
        found.model.fc.in_features == 5 and found.model.conv2.weight.shape == (5, 5, 3, 3) and found.model.short.weight.shape[:2] == (5, 5)
    )
    assert set(found.moved) <= {"conv1", "conv2"} and found.moved, "what has no padding is exact"
    before = zeroed(model, keep)
    for norm in (model.bn, model.bn1):  # where the constants are zero there is nothing to be off
        norm.bias.data.copy_(norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt() - 1)
    model.conv1.bias.data.zero_()
    found, before = narrow(model, x[:1], keep), zeroed(model, keep)
    assert close(found.model(x), before(x)) and not found.moved


def test_depthwise_filters_go_with_what_they_read_and_groups_lose_alike():
    model, x = randomise(Depthwise()), torch.randn(2, 3, 10, 9).double()
    keep = {
        "stem": torch.arange(8) > 2,
        "pointwise": torch.tensor([1, 0, 1, 1, 0, 1, 0, 1, 1, 1]).bool(),
        "grouped": torch.tensor([1, 0, 1, 1, 0, 0]).bool(),
    }
    found = narrow(model, x[:1], keep)
    m = found.model
    assert (m.depthwise.groups, m.depthwise.in_channels, m.depthwise.out_channels, m.bn2.num_features) == (5, 5, 5, 5)
    assert m.depthwise.weight.shape == (5, 1, 3, 3) and m.pointwise.weight.shape == (8, 5, 1, 1)
    assert m.grouped.weight.shape == (4, 4, 3, 3) and (m.grouped.in_channels, m.grouped.out_channels, m.grouped.groups) == (8, 4, 2)
    assert found.zeroed["pointwise"][0] == 1 and found.zeroed["grouped"][0] == 1, "of these another group keeps the same one"
    assert m(x).shape == model(x).shape


def test_what_cannot_go_is_zero_and_said():
    model, x = randomise(Tokens()), torch.randn(2, 3, 5, 4).double()
    keep = {"embed": torch.arange(6) > 1, "query": torch.arange(6) > 2, "out": torch.arange(4) > 0}
    found = narrow(model, x[:1], keep)
    assert torch.equal(found.model(x), zeroed(model, keep)(x)) and not found.rows
    assert {name: count for name, (count, _) in found.zeroed.items()} == {"embed": 2, "query": 3, "out": 1}
    assert "norm" in found.zeroed["embed"][1] and "matmul" in found.zeroed["query"][1] and "output" in found.zeroed["out"][1]
    plain, images = randomise(Plain()), torch.randn(1, 3, 10, 10).double()
    found = narrow(plain, images, {"conv2": torch.zeros(5).bool()}, leave={"fc1": "excluded"})
    assert found.zeroed["conv2"][0] == 1 and found.model.conv2.out_channels == 1, "one stays, of zeros"
    assert narrow(plain, images, {"conv3": torch.arange(4) > 1}, leave={"fc1": "excluded"}).zeroed["conv3"] == (
        2,
        "fc1 reads it (excluded)",
    )


def test_one_that_cannot_be_traced_is_refused():
    with pytest.raises(InputError, match="^model=Untraceable: torch.fx cannot trace it"):
        narrow(randomise(Untraceable()), torch.randn(1, 3, 9, 8).double(), {"first": torch.arange(6) > 2})


def test_nothing_to_remove_is_the_network_itself():
    model, x = randomise(Residual()), torch.randn(2, 3, 9, 8).double()
    found = narrow(model, x[:1], {"conv1": torch.ones(8).bool()})
    assert torch.equal(found.model(x), model(x)) and not (found.rows or found.zeroed or found.moved)


@pytest.mark.parametrize("named", [True, False])
def test_a_view_that_names_a_size_holds_its_features(named):
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(24, 2)

        def forward(self, x):
            x = self.conv(x)
            return self.fc(x.view(-1, 24) if named else x.view(x.shape[0], -1))

    channels = find_channels(Views(), torch.randn(1, 3, 4, 4))
    assert (channels.reason(int(channels.outputs["conv"][0])) is not None) == named


def test_what_features_leave_behind():
    """Nothing, or the mean of what was made of them, which moves no mean of the layer that reads them."""
    model, x, keep = randomise(Plain()), torch.randn(20, 3, 10, 10).double(), {"conv3": torch.arange(4) > 1}
    read = {}
    for name, constants in (("none", "none"), ("mean", Batches.of(x, model=model))):
        small = narrow(model, x[:1], keep, constants=constants).model
        small.fc1.register_forward_hook(lambda _, args, output, name=name: read.update({name: output}))
        small(x)
    before = F.gelu(model.conv3(F.relu(model.bn2(model.conv2(F.max_pool2d(F.relu(model.bn1(model.conv1(x))), 2, 1)))) + 1)).flatten(1)
    assert close(read["mean"].mean(0), model.fc1(before).mean(0))
    assert close(read["none"], F.linear(before[:, 18:], model.fc1.weight[:, 18:], model.fc1.bias))


class Reads(nn.Module):
    """A convolution, what ``read`` does to its features and another tensor of as many, and a convolution that reads this."""

    def __init__(self, read):
        super().__init__()
        self.a, self.b, self.c, self.read = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), read

    def forward(self, x):
        return self.c(self.read(self.a(x), self.b(x)))


READ = {
    "rolled": lambda a, b: a.roll(3, 1),
    "rolled by name": lambda a, b: torch.roll(a, shifts=(1, 3), dims=(2, 1)),
    "clamped by another": lambda a, b: a.clamp(min=b),
    "times its size": lambda a, b: a * a.size(1) ** -0.5,
    "over a size of its shape": lambda a, b: a / a.shape[1:][0],
    "a slice of its shape up to a size": lambda a, b: a * a.shape[: a.shape[1]][1],
    "times the size of another": lambda a, b: a * b.shape[1],
    "times its numbers": lambda a, b: a / a.numel(),
    "a slope from its size": lambda a, b: F.leaky_relu(a, 1 / a.shape[1]),
    "its halves mixed": lambda a, b: a.view(a.size(0), a.size(1) // 2, -1, 4, 4).transpose(1, 2).flatten(1, 2),
}


@pytest.mark.parametrize("name", READ)
def test_what_depends_on_which_features_there_are_holds_them(name):
    """An operation that would give something else of fewer features, in any of the ways that sizes, order or a second tensor take part."""
    model, x = randomise(Reads(READ[name])), torch.randn(2, 3, 4, 4).double()
    keep = masks(model, without=["c"])
    result = narrow(model, x[:1], keep)
    assert close(result.model(x), zeroed(model, keep)(x))
    assert "a" in result.zeroed or "b" in result.zeroed


def test_sizes_that_features_do_not_change_hold_nothing():
    """A roll of places, sizes of places, and a size along which the features lie themselves."""
    model = randomise(Reads(lambda a, b: (a.roll(1, 2) / a.shape[-1]).view(a.size(0), a.size(1), a.shape[2], a.shape[3]) * a.dim() + b))
    x, keep = torch.randn(2, 3, 4, 4).double(), masks(model, without=["b", "c"])
    keep["b"] = keep["a"]
    result = narrow(model, x[:1], keep)
    assert result.rows.keys() == {"a", "b"} and not result.zeroed
    assert close(result.model(x), zeroed(model, keep)(x))


def test_one_example_whose_dimension_is_squeezed_away():
    class Squeezed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 2)

        def forward(self, x):
            return self.fc(self.conv(x).mean((2, 3), keepdim=True).squeeze())

    model, x = randomise(Squeezed()), torch.randn(2, 3, 4, 4).double()
    keep = {"conv": torch.arange(6) > 2}
    result = narrow(model, x[:1], keep)
    assert result.model.conv.out_channels == 3
    assert close(result.model(x), zeroed(model, keep)(x))


def test_constants_that_tracing_makes():
    class Normalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.rand(3))
            self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1)

        def forward(self, x):
            return self.b(self.a(x - self.mean[:, None, None])) * torch.tensor([1.0, 2, 3, 4])[:, None, None].to(x)

    model, x = randomise(Normalised()), torch.randn(2, 3, 5, 5).double()
    keep = {"a": torch.arange(6) > 2}
    result = narrow(model, x[:1], keep)
    assert result.model.a.out_channels == 3 and close(result.model(x), zeroed(model, keep)(x))


class Auxiliary(nn.Module):
    """What only the training mode reads: another output, or a buffer with a value of each feature."""

    def __init__(self, noisy):
        super().__init__()
        self.noisy = noisy
        self.a, self.b, self.c = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 4, 1)
        self.aux = nn.Linear(6, 2)
        self.register_buffer("noise", torch.ones(6))

    def forward(self, x):
        h = self.a(x)
        if self.noisy and self.training:
            h = h + torch.randn_like(h) * self.noise.view(1, -1, 1, 1)
        y = self.c(self.b(h))
        return (y, self.aux(h.mean((2, 3)))) if self.training and not self.noisy else y


@pytest.mark.parametrize("noisy", [False, True])
def test_what_only_the_training_mode_reads_stays(noisy):
    model, x, keep = randomise(Auxiliary(noisy)), torch.randn(4, 3, 5, 5).double(), {n: torch.arange(6) > 2 for n in ("a", "b")}
    if noisy:
        model.aux = nn.Identity()
    result = narrow(model, x[:1], keep)
    assert result.model.a.out_channels == 6 and result.model.b.out_channels == 3 and "a" in result.zeroed
    assert close(result.model(x), zeroed(model, keep)(x))
    result.model.train()(x)


@pytest.mark.parametrize(
    "join", [lambda x: torch.cat(x.split([2, 4], 1)[::-1], 1), lambda x: torch.cat(x.chunk(3, 1)[:2] + x.chunk(3, 1)[2:], 1)]
)
def test_pieces_that_are_joined_without_being_named(join):
    class Pieces(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1)

        def forward(self, x):
            return self.b(join(self.a(x)))

    model, x, keep = randomise(Pieces()), torch.randn(2, 3, 5, 5).double(), {"a": torch.arange(6) % 2 == 0}
    assert close(narrow(model, x[:1], keep).model(x), zeroed(model, keep)(x))
