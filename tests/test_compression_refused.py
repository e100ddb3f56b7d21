"""What ``lrp.compress`` refuses, each in one sentence."""

import pytest
import torch
from cases import Wrapped
from helpers import NAMES, small
from torch import nn

import lrp
from lrp.blocking.none import Unblocked
from lrp.errors import InputError
from lrp.estimator.exact import ExactEstimator
from lrp.method.singular_vectors import SingularVectors
from lrp.scorer.magnitude import Magnitude
from lrp.selection.global_ import GlobalSelection

IMAGES = torch.randn(8, 3, 8, 8).double()
NAN = IMAGES.clone()
NAN[3, 0, 0, 0] = float("nan")


OBJECT = SingularVectors(Unblocked(), Magnitude(), ExactEstimator(), GlobalSelection())
BAD = {
    "wrong channels": ({"calibration": torch.randn(8, 4, 8, 8).double()}, r"calibration: .*\(1, 4, 8, 8\)"),
    "wrong dimensions": ({"calibration": torch.randn(8).double()}, "calibration: "),
    "wrong precision": ({"calibration": torch.randn(8, 3, 8, 8)}, "calibration: .*float32"),
    "empty list": ({"calibration": []}, "calibration: it is empty"),
    "empty tensor": ({"calibration": IMAGES[:0]}, "calibration: it is empty"),
    "empty batches": ({"calibration": [IMAGES[:0], IMAGES[:0]]}, "calibration: it is empty"),
    "keywords it does not have": ({"calibration": {"y": IMAGES}}, "calibration: the network cannot run on inputs"),
    "string": ({"calibration": "images"}, "calibration=str"),
    "number": ({"calibration": 3}, "calibration=int"),
    "none": ({"calibration": None}, "calibration"),
    "a dict without tensors": ({"calibration": [{"x": 1}]}, "calibration: a batch holds a dict"),
    "batches of numbers": ({"calibration": [1.0, 2.0]}, "calibration: a batch holds a float"),
    "a scalar": ({"calibration": torch.tensor(1.0)}, "calibration: a batch holds"),
    "an empty tuple": ({"calibration": [()]}, "calibration: a batch holds a tuple"),
    "batches that differ": ({"calibration": [IMAGES[:2], IMAGES[:2, :, 1:]]}, "calibration: batches differ"),
    "a list of images": ({"calibration": list(IMAGES)}, r"calibration: .*\(1, 8, 8\).*give torch.stack\(calibration\) where"),
    "a list of grey images": (
        {"model": nn.Conv2d(1, 8, 3).double(), "calibration": list(IMAGES[:, :1])}, r"calibration: .*\(2, 8, 8\).*give torch.stack"
    ),
    "precisions that differ": ({"calibration": [IMAGES[:2], IMAGES[:2].float()]}, "calibration: batches differ.*float"),
    "devices that differ": ({"calibration": [IMAGES[:2], IMAGES[:2].to("meta")]}, "calibration: .*meta"),
    "another device": ({"calibration": torch.empty(8, 3, 8, 8, dtype=torch.float64, device="meta")}, "calibration: .*on meta.*on cpu"),
    "not finite": ({"calibration": NAN}, "calibration: .*not finite"),
    "sparsity 1": ({"sparsity": 1}, r"sparsity=1: .*\[0, 1\)"),
    "sparsity below": ({"sparsity": -0.1}, r"sparsity=-0.1: .*\[0, 1\)"),
    "sparsity word": ({"sparsity": "x"}, r"sparsity=x: .*\[0, 1\)"),
    "sparsity nan": ({"sparsity": float("nan")}, r"sparsity=nan: .*\[0, 1\)"),
    "blocking": ({"blocking": "foo"}, f"blocking=foo: .*{', '.join(NAMES['blocking'])}"),
    "scorer": ({"scorer": "foo"}, "scorer=foo: .*perturbation"),
    "estimator": ({"estimator": "foo"}, "estimator=foo: .*first_order"),
    "selection": ({"selection": "foo"}, "selection=foo: .*global"),
    "recovery": ({"recovery": "foo"}, "recovery=foo: .*batchnorm"),
    "recovery not a name": ({"recovery": 3}, "recovery=3"),
    "blocking number": ({"blocking": 3}, "blocking=3"),
    "budget": ({"budget": "flops"}, "budget=flops: choose one of params, macs"),
    "exclude": ({"exclude": ["nothing"]}, "exclude=nothing: .*conv1"),
    "exclude number": ({"exclude": [3]}, "exclude"),
    "all excluded": ({"exclude": ["*"]}, "no layer to compress .*excluded"),
    "images": ({"images": 0}, "images=0"),
    "scoring images": ({"scoring_images": 0}, "scoring_images=0"),
    "batch size": ({"batch_size": 0}, "batch_size=0"),
    "method": ({"method": "foo"}, f"method=foo: .*{', '.join(NAMES['method'])}"),
    "method not a name": ({"method": 5}, "method=5: must be the name of an option or a configured object"),
    "a class as method": ({"method": SingularVectors}, "method=.*: must be the name of an option or a configured object"),
    "a part that the method does not use": ({"method": "alds", "scorer": "variance"}, "scorer=variance: method=alds does not use"),
    "exclude beside a method": ({"method": OBJECT, "exclude": ["fc"]}, "exclude=.*has its own"),
    "budget beside a method": ({"method": OBJECT, "budget": "macs"}, "budget=macs: .*has its own"),
    "a part beside a method": ({"method": OBJECT, "blocking": "alds"}, "blocking=alds: .*has its parts already"),
    "no network": ({"model": 3}, "model=int"),
    "nothing to compress": ({"model": nn.ReLU()}, "no layer to compress"),
    "only an embedding": (
        {"model": nn.Embedding(5, 5), "calibration": torch.randint(5, (8, 2)), "budget": "macs"}, "no layer to compress .*looks vectors up",
    ),
    "output": ({"output": lambda y: y.logits}, "output"),
    "output is no function": ({"output": 3}, "output"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD)
def test_errors_are_one_sentence(residual, case):
    options, match = BAD[case]
    options = {"model": residual, "calibration": IMAGES} | options
    with pytest.raises(lrp.InputError, match=match) as error:
        small(options.pop("model"), options.pop("calibration"), **options)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [lambda y: (y, y), lambda y: {"scores": y}])
@pytest.mark.parametrize("estimator", ["first_order", "exact"])
def test_a_tuple_without_output(residual, wrap, estimator):
    with pytest.raises(lrp.InputError, match=r"output.*(tuple|dict)") as error:
        small(Wrapped(residual, wrap), IMAGES, estimator=estimator)
    assert "\n" not in str(error.value)


def test_a_weight_that_is_not_finite_names_the_layer(residual):
    with torch.no_grad():
        residual.conv2.weight[0, 0, 0, 0] = float("inf")
    with pytest.raises(lrp.InputError, match="conv2"):
        small(residual, IMAGES)


def test_names_that_there_are_not(net, x):
    for group in ("decomposition", "compensation"):
        with pytest.raises(InputError, match=f"^{group}=best: .* {', '.join(NAMES[group])}$"):
            lrp.compress(net, x, 0.5, **{group: "best"})
