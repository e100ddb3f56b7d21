"""What every form says of a layer, and what becomes of it."""

import copy

import numpy as np
import pytest
import torch
from cases import Kinds
from torch import nn

import lrp
from lrp.config.method import make_method
from lrp.cost.count import count_macs
from lrp.errors import InputError
from lrp.evidence import Evidence
from lrp.form.base import Side, lost_after, rank_grid
from lrp.form.known import FORMS
from lrp.layer.compressed import Compressed
from lrp.method.asked_forms import BEST
from lrp.method.forms import with_forms


@pytest.fixture(scope="module")
def scored():
    """(the network, 24 inputs, the network scored with all forms)"""
    torch.manual_seed(0)
    model, x = Kinds().eval(), torch.randn(24, 3, 10, 9)
    method = make_method("output_aware", {}, {"budget": "params", "macs_removed": None, "exclude": (), "samples": 500, "forms": ["matrix"]})
    return model, x, with_forms(method.fit(Evidence(model, x)), tuple(FORMS))


def test_choices_cost_what_their_layers_hold(scored):
    """Parameters and multiply-accumulates of plans against those of the modules that they become; all but the dense layer are smaller."""
    model, x, fitted = scored
    seen = set()
    for name, held in fitted.choices.items():
        dense, size = model.get_submodule(name), fitted.evidence.matrices[name].weight.numel()
        shape = fitted.evidence.survey.inputs[name]
        for choices in held:
            seen.add((choices.form, name))
            assert choices.loss.min() >= 0 and bool(np.isfinite(choices.loss).all())
            for i in {0, len(choices.loss) // 2, len(choices.loss) - 1}:
                plan = choices.plan(i)
                layer = plan.build(copy.deepcopy(dense))
                assert (plan.params, plan.macs) == (choices.params[i], choices.macs[i])
                assert sum(p.numel() for n, p in layer.named_parameters() if n != "bias") == plan.params
                assert plan.params < size or plan.untouched
                if plan.params:
                    assert count_macs(layer, torch.randn(shape)) == plan.macs
                rows = plan.rows()
                assert {row["layer"] for row in rows} == {name} and all(0 <= row["kept"] <= row["full"] for row in rows)
                assert plan.summary()["params_after"] == plan.params
    matrices = fitted.evidence.matrices
    assert seen == {(form, name) for form in FORMS for name in matrices if FORMS[form].fits(model.get_submodule(name), matrices[name])}
    assert {n for f, n in seen if f == "spatial"} == {"first", "grouped", "wide"}
    assert {n for f, n in seen if f == "spatial_pivoted"} == {"first", "wide"}
    assert {n for f, n in seen if f == "tucker2"} == {"first", "grouped", "wide", "line"}
    assert {n for f, n in seen if f == "pivoted"} == {"first", "wide", "point", "line", "head"}


def test_losses_fall_with_ranks_and_end_at_nothing(scored):
    """The dense layer loses nothing; nothing kept loses the most; larger ranks never lose more than smaller ones."""
    for held in scored[2].choices.values():
        for choices in held:
            plans = [choices.plan(i) for i in range(len(choices.loss))]
            if choices.form == "matrix":
                assert choices.loss[-1] == 0 and choices.params[0] == 0 and choices.loss[0] == max(choices.loss)
            elif isinstance(plans[0].ranks, tuple):
                loss = {plan.ranks: value for plan, value in zip(plans, choices.loss)}
                above = lambda a, b: all(x >= y for x, y in zip(a, b))  # noqa: E731
                assert all(loss[a] <= loss[b] + 1e-12 for a in loss for b in loss if above(a, b))
            else:
                assert all(np.diff(choices.loss) <= 1e-12)


@pytest.mark.parametrize(
    "forms",
    [["tucker2"], ["spatial"], ["nested"], ["pivoted", "tucker2_pivoted"], ["spatial_pivoted", "tucker2"], [*FORMS], "auto"],
    ids=str,
)
def test_compress_in_these_forms(forms, tmp_path):
    """Stored, fused, saved, loaded, unfolded, exported to a program, and trained on."""
    torch.manual_seed(0)
    model, x = Kinds().eval(), torch.randn(24, 3, 10, 9)
    small, report = lrp.compress(model, x, 0.6, forms=forms, exclude=["head"])
    assert report.attrs["sparsity_params"] >= 0.6 and small(x).isfinite().all()
    layers = [m for m in small.modules() if isinstance(m, Compressed)]
    names = set(BEST) if forms == "auto" else set(forms)
    assert {layer.form for layer in layers} <= names | {"matrix"} and {layer.form for layer in layers} & names
    assert sum(p.numel() for layer in layers for n, p in layer.named_parameters() if n != "bias") <= report.attrs["params"]
    lrp.save(small, tmp_path / "a.safetensors")
    loaded = lrp.load(tmp_path / "a.safetensors", Kinds)
    assert torch.equal(loaded(x), small(x)) and str(loaded) == str(small)
    fused = lrp.fuse(small)
    assert torch.allclose(fused(x), small(x), atol=1e-4) and not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    lrp.save(fused, tmp_path / "b.safetensors")
    assert torch.equal(lrp.load(tmp_path / "b.safetensors", Kinds)(x), fused(x))
    assert torch.allclose(lrp.unfold(small)(x), small(x), atol=1e-5)
    assert torch.allclose(torch.export.export(small, (x,)).module()(x), small(x), atol=1e-5)
    small.train()(x).square().mean().backward()
    assert all(p.grad is not None for name, p in small.named_parameters() if name.startswith("head"))


def test_compensation_comes_nearer_than_the_projection():
    """Least squares in a form's own shape against its best components alone, on the layer's examples."""
    torch.manual_seed(0)
    model, x = Kinds().eval(), torch.randn(64, 3, 10, 9)
    for forms in (["tucker2"], ["spatial"], ["pivoted"], ["tucker2_pivoted"], ["spatial_pivoted"]):
        options = {"forms": forms, "exclude": ["head", "grouped"], "samples": 4000}
        with_, without = (lrp.compress(model, x, 0.5, compensation=c, **options)[0] for c in ("least_squares", "none"))
        near, far = ((small(x) - model(x)).square().mean() for small in (with_, without))
        assert near < 0.7 * far


@pytest.mark.parametrize(("sparsity", "macs_removed"), [(0.5, 0.7), (0.7, 0.3)])
def test_two_budgets(sparsity, macs_removed):
    torch.manual_seed(0)
    model, x = Kinds().eval(), torch.randn(16, 3, 10, 9)
    _, report = lrp.compress(model, x, sparsity, macs_removed=macs_removed, forms=["matrix", "tucker2", "spatial"])
    assert report.attrs["sparsity_params"] >= sparsity and report.attrs["sparsity_macs"] >= macs_removed
    _, by_macs = lrp.compress(model, x, sparsity, budget="macs")
    assert by_macs.attrs["sparsity_macs"] >= sparsity


def test_more_forms_never_predict_worse(scored):
    """The predicted loss of all forms together against that of each alone, at every budget."""
    fitted = scored[2]
    for sparsity in (0.2, 0.5, 0.7, 0.9):
        predicted = {}
        for forms in [("matrix",), ("matrix", "tucker2"), ("matrix", "spatial"), tuple(FORMS)]:
            one = copy.copy(fitted)
            one.choices = {name: [c for c in held if c.form in forms] for name, held in fitted.choices.items()}
            plan = one.plan(sparsity)
            losses = {name: [(c, i) for c in held for i in range(len(c.loss))] for name, held in one.choices.items()}
            predicted[forms] = sum(
                min(c.loss[i] for c, i in losses[name] if c.params[i] == layer.params and c.macs[i] == layer.macs)
                for name, layer in plan.layers.items()
            )
        assert predicted[tuple(FORMS)] <= 1.02 * min(predicted.values())


def test_bad_input():
    model, x = Kinds().eval(), torch.randn(8, 3, 10, 9)
    for forms in ("tucker", ["matrix", "matrix"], [], ["matrix", 3], {}, [["matrix"]]):
        with pytest.raises(InputError, match=f"^forms=.*give auto, or a list of {', '.join(FORMS)}, each at most once$"):
            lrp.compress(model, x, 0.5, forms=forms)
    for part, allowed in (({"scorer": "magnitude"}, "scorer=noise_to_signal"), ({"selection": "global"}, "selection=lagrangian")):
        with pytest.raises(InputError, match=f"it knows the form matrix alone; set forms=matrix with it, or {allowed}"):
            lrp.compress(model, x, 0.5, forms=["tucker2"], **part)
        small, _ = lrp.compress(model, x, 0.5, **part)  # not asked for: matrices, as before
        assert {m.form for m in small.modules() if isinstance(m, Compressed)} == {"matrix"}
    with pytest.raises(InputError, match="^forms=.*: method=alds has a form of its own$"):
        lrp.compress(model, x, 0.5, method="alds", forms=["tucker2"])


def test_a_grid_of_ranks():
    assert list(rank_grid(6, 1)) == [1, 2, 3, 4, 5, 6] and list(rank_grid(9, 4)) == [1, 2, 3, 4, 8]
    grid = rank_grid(100, 1)
    assert grid[-1] == 100 and 47 in grid and 49 not in grid and 52 in grid
    sides = [Side(torch.tensor(scores).double(), torch.eye(2)) for scores in ([1.0, 4.0], [2.0, 3.0])]
    assert np.allclose(lost_after(sides), [10, 3, 0]) and torch.equal(sides[0].kept(1), torch.tensor([[0.0], [1.0]]))
