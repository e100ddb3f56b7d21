"""ALDS's search against brute force, its budget, its blocks and its errors."""

import itertools
import math
from fractions import Fraction

import pytest
import torch

from lrp.errors import InputError
from lrp.layer.build import layer_matrices
from lrp.matrices import LayerMatrix
from lrp.method.alds_search import AldsSearch, allocation_blocks, group_values

SHAPES = {"a": (6, 4, 3), "b": (10, 6, 2), "c": (8, 8, 1), "d": (3, 5, 1)}  # M, channels, kernel


def matrices(seed=0, shapes=SHAPES):
    """Matrices whose singular values fall off, each at a speed of its own."""
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for i, (name, (rows, channels, kernel)) in enumerate(shapes.items()):
        U, S, V = torch.linalg.svd(torch.randn(rows, channels * kernel, generator=draw), full_matrices=False)
        weight = U * S * torch.arange(1, len(S) + 1) ** (-0.4 * i) @ V
        found[name] = LayerMatrix(name, weight, kernel)
    return found


def divisors(matrix):
    return [k for k in range(1, matrix.channels + 1) if matrix.channels % k == 0]


def layer_options(matrix, k, sqrt_k=False):
    """(error, parameters) at each rank of all groups, and stored whole: written out without the code under test."""
    weight = matrix.weight.double()
    rows, columns = weight.shape
    groups = [torch.linalg.svdvals(part) for part in weight.chunk(k, dim=1)]
    options = [(0.0, rows * columns)]
    for j in range(1, min(rows, columns // k) + 1):
        if (params := j * (k * rows + columns)) < rows * columns:
            above = max(float(S[j]) if j < len(S) else 0.0 for S in groups)
            options.append((above / float(torch.linalg.matrix_norm(weight, 2)) * (math.sqrt(k) if sqrt_k else 1), params))
    return options


def lowest_level(options, budget):
    """The lowest of all error levels at which the cheapest option within it, of every layer, fits the budget."""
    for level in sorted({error for layer in options for error, _ in layer}):
        if sum(min(params for error, params in layer if error <= level) for layer in options) <= budget:
            return level
    return math.inf


@pytest.mark.parametrize("sqrt_k", [False, True])
@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.5, 0.6])
def test_the_lowest_level_of_all_there_are(sparsity, sqrt_k):
    layers = matrices()
    budget = (1 - Fraction(str(sparsity))) * sum(m.weight.numel() for m in layers.values())
    options = {(name, k): layer_options(m, k, sqrt_k) for name, m in layers.items() for k in divisors(m)}
    levels = {}
    for ks in itertools.product(*map(divisors, layers.values())):
        levels[ks] = lowest_level([options[name, k] for name, k in zip(layers, ks)], budget)
    search = AldsSearch(layers, starts=400, sqrt_k=sqrt_k)
    for ks, level in levels.items():
        if level < math.inf:  # the rank step is exact at every k
            assert search._level(dict(zip(layers, ks)), budget) == pytest.approx(level, abs=1e-7)
    found = search(sparsity)
    assert found.error == pytest.approx(min(levels.values()), abs=1e-7)
    assert AldsSearch(layers, sqrt_k=sqrt_k)(sparsity).error <= 1.1 * found.error  # as many starts as theirs


def test_what_an_allocation_says():
    """Ranks are the smallest within the error, which some layer has; parameters are those of the blocks."""
    layers = matrices(1)
    for sparsity in (0.2, 0.4, 0.6):
        found = AldsSearch(layers)(sparsity)
        errors, stored = [], 0
        for name, matrix in layers.items():
            if found.k[name] is None:
                assert found.rank[name] is None
                stored += matrix.weight.numel()
                continue
            options = layer_options(matrix, found.k[name])[1:]
            error, params = options[found.rank[name] - 1]
            errors.append(error)
            stored += params
            if found.rank[name] > 1:
                assert options[found.rank[name] - 2][0] > found.error + 1e-7
        assert max(errors) == pytest.approx(found.error, abs=1e-7) and found.params == stored
        blocks = allocation_blocks(layers, found)
        held = sum(b.size if found.rank[b.layer] is None else b.cost(found.rank[b.layer]) for b in blocks)
        assert held == stored and not any(found.rank[b.layer] and b.is_dense(found.rank[b.layer]) for b in blocks)
        assert {n: sum(b.layer == n for b in blocks) for n in layers} == {n: found.k[n] or 1 for n in layers}


def test_more_starts_are_never_worse_and_steps_never_raise_the_level():
    layers = matrices(3)
    for sparsity in (0.15, 0.35, 0.55):
        errors = [AldsSearch(layers, starts=n)(sparsity).error for n in (1, 4, 15, 60)]
        assert errors == sorted(errors, reverse=True)
        search, budget = AldsSearch(layers), (1 - Fraction(str(sparsity))) * sum(m.weight.numel() for m in layers.values())
        assert search._descend(dict.fromkeys(layers, 1), budget)[0] <= search._level(dict.fromkeys(layers, 1), budget)


@pytest.mark.parametrize("budget", ["params", "macs"])
def test_the_budget_holds_or_is_rejected(budget):
    positions = {"a": 64, "b": 16, "c": 1, "d": 1}
    weight = positions if budget == "macs" else dict.fromkeys(positions, 1)
    for seed in range(2):
        layers = matrices(seed)
        search = AldsSearch(layers, positions, budget, seed=seed)
        total = sum(weight[n] * m.weight.numel() for n, m in layers.items())
        least = sum(weight[n] * min(sum(m.shape), m.weight.numel()) for n, m in layers.items())
        for step in range(25):
            sparsity = step / 25
            allowed = (1 - Fraction(str(sparsity))) * total
            if least > allowed:
                with pytest.raises(InputError, match=f"sparsity.grid={sparsity}: ALDS removes at most"):
                    search(sparsity)
                continue
            found = search(sparsity)
            cost = 0
            for name, matrix in layers.items():
                rows, columns = matrix.shape
                whole = found.rank[name] is None
                cost += weight[name] * (rows * columns if whole else found.rank[name] * (found.k[name] * rows + columns))
            assert cost <= allowed


def test_the_sentence_of_the_least_that_there_is():
    search = AldsSearch(matrices())
    least = sum(min(sum(m.shape), m.weight.numel()) for m in matrices().values())
    most = math.floor(10_000 * (1 - Fraction(least, 72 + 120 + 64 + 15))) / 10_000
    with pytest.raises(InputError, match=f"at most {most} of these parameters"):
        search(0.99)
    assert search(most).params == least


def test_nothing_to_remove_leaves_all_dense():
    layers = {**matrices(), "zero": LayerMatrix("zero", torch.zeros(6, 6), 1)}
    found = AldsSearch(layers)(0)
    assert set(found.k.values()) == set(found.rank.values()) == {None} and found.error == 0
    assert found.params == sum(m.weight.numel() for m in layers.values())
    assert len(allocation_blocks(layers, found)) == len(layers)
    assert AldsSearch(layers)(0.01).rank["zero"] == 1  # a layer of zeros costs no error


def test_sqrt_k_multiplies_every_error():
    plain, more = AldsSearch(matrices()).layers, AldsSearch(matrices(), sqrt_k=True).layers
    for name in plain:
        for k, errors in plain[name].errors.items():
            assert more[name].errors[k] == pytest.approx(errors * math.sqrt(k))


@pytest.mark.parametrize("shape", [(6, 4, 3), (20, 8, 1), (5, 12, 9), (1, 3, 1)])
def test_singular_values(shape):
    matrix = matrices(2, {"x": shape})["x"]
    for k in divisors(matrix):
        groups = matrix.weight.double().chunk(k, dim=1)
        expected = torch.stack([torch.linalg.svdvals(group) for group in groups]).amax(0)
        assert group_values(matrix, k) == pytest.approx(expected.numpy(), abs=1e-7 * float(expected[0]))


def test_grouped_convolutions(depthwise):
    layers = layer_matrices(depthwise)
    assert layers["grouped"].groups == 2
    search = AldsSearch(layers)
    for sparsity in (0.0, 0.1, 0.3, 0.5):
        found = search(sparsity)
        blocks = allocation_blocks(layers, found)
        held = sum(b.size if found.rank[b.layer] is None else b.cost(found.rank[b.layer]) for b in blocks)
        assert held == found.params <= (1 - sparsity) * sum(m.weight.numel() for m in layers.values())
        assert sum(b.layer == "grouped" for b in blocks) == 2 * (found.k["grouped"] or 1)
    halves = layers["grouped"].weight.chunk(2)
    expected = torch.stack([torch.linalg.svdvals(half) for half in halves]).amax(0)
    errors = search.layers["grouped"].errors[1]
    assert errors == pytest.approx((expected[1:] / expected[0]).numpy()[: len(errors)])


def test_the_seed_decides():
    layers = matrices(5)
    search = AldsSearch(layers, seed=3)
    first = search(0.4)
    search(0.2)
    assert search(0.4) == first == AldsSearch(layers, seed=3)(0.4)
    assert search._starts(0.4)[:4] == AldsSearch(layers, seed=4)._starts(0.4)[:4]
    assert search._starts(0.4)[4:] != AldsSearch(layers, seed=4)._starts(0.4)[4:]


def test_bad_input():
    layers = matrices()
    layers["b"].weight[0, 0] = math.nan
    with pytest.raises(InputError, match="layer b: .* not finite"):
        AldsSearch(layers)
    for option, value in (("starts", 0), ("sqrt_k", 1), ("budget", "ms"), ("seed", -1)):
        with pytest.raises(InputError, match=f"{option}={value}"):
            AldsSearch(matrices(), **{option: value})
    with pytest.raises(InputError, match="sparsity.grid=1"):
        AldsSearch(matrices())(1)
