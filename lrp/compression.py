"""One call: a network in, a smaller one and a report out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lrp.config.parts import make_part
from lrp.cost.report import Report
from lrp.errors import InputError, check_int, check_sparsity
from lrp.layer.build import find_kind
from lrp.method.singular_vectors import SingularVectors
from lrp.network.arithmetic import run_model
from lrp.recovery.context import Context


def compress(
    model: nn.Module,
    calibration: Tensor | Iterable[Any],
    sparsity: float = 0.5,
    *,
    blocking: Any = "none",
    scorer: Any = "noise_to_signal",
    estimator: Any = "first_order",
    selection: Any = "lagrangian",
    decomposition: Any = "svd",
    compensation: Any = "least_squares",
    budget: str = "params",
    macs_removed: float | None = None,
    exclude: Sequence[str] | None = (),
    recovery: Any = None,
    output: Callable[[Any], Tensor] | None = None,
    images: int = 1024,
    scoring_images: int = 64,
    samples: int = 16384,
    batch_size: int = 128,
) -> tuple[nn.Module, Report]:
    """A smaller copy of a network by low-rank pruning, and what was done to each layer. The original is untouched.

    ``calibration``: unlabelled examples on the network's device, as the network takes them: a tensor (B, ...), a DataLoader or
    any iterable of batches; of a batch that is a tuple or a list the first entry counts, so labels may be there. The first
    ``images`` examples are used, or as many as there are: scores look at the first ``scoring_images``, the rest at all, ``recovery``
    ``batch_size`` at a time; decomposition and compensation at about ``samples`` positions of each layer's output. By default the
    parts are those of ``method=output_aware``: more images make them more accurate, up to some ten times as many positions as the
    widest layer matrix has columns; for a classifier ``estimator=FirstOrderEstimator(output="hellinger", temperature=4.0)``
    (lrp.estimator.first_order) makes them more accurate too.
    ``sparsity``, in [0, 1): the share of the parameters (``budget="params"``) or of the multiply-accumulates (``"macs"``) of the
    compressed layers to remove; ``macs_removed``: with ``params``, the share of the multiply-accumulates that has to go besides. ``blocking``, ``decomposition``, ``scorer``, ``estimator``, ``selection``, ``compensation``,
    ``recovery`` (None: ``batchnorm`` without compensation, nothing with it): the names that ``python -m lrp.run`` takes, or configured objects such as ``GlobalSelection(round_to=8)``. ``exclude``: names of layers, of
    modules that contain them, or shell patterns. ``output`` gets the tensor to preserve out of what the network returns, where
    that is a tuple or a dict.

    The result has the modes (train, eval) of the original, module by module, and carries the report as ``lrp_report``. Raises
    InputError, in one sentence, for input that cannot be used.
    """
    sparsity = check_sparsity("sparsity", sparsity)
    check_int("scoring_images", scoring_images, 1)
    check_int("images", images, 1)
    check_int("batch_size", batch_size, 2)
    if not isinstance(model, nn.Module):
        raise InputError("model", type(model).__name__, "a torch.nn.Module is needed")
    parts = {
        "blocking": blocking, "scorer": scorer, "estimator": estimator, "selection": selection, "decomposition": decomposition,
        "compensation": compensation,
    }  # fmt: skip
    parts = {name: make_part(name, chosen) for name, chosen in parts.items()}
    if recovery is None:  # compensation has already fitted what batch norm reads: new statistics would undo a part of it
        recovery = "batchnorm" if parts["compensation"].name == "none" else "none"
    recover = make_part("recovery", recovery)
    if output is not None:
        parts["estimator"] = replace(parts["estimator"], output_fn=output)
    method = SingularVectors(
        **parts,
        budget=budget,
        macs_removed=macs_removed,
        samples=samples,
        exclude=tuple([exclude] if isinstance(exclude, str) else exclude or ()),
    )
    inputs = calibration_inputs(calibration, images)
    check_inputs(model, inputs)

    kind = find_kind(model)
    alone = kind is not None and kind.form(model) is not None
    if alone:  # a network of one layer has no place in which another could be put
        model = nn.Sequential(model)
    fitted = method.fit(model, inputs, scoring_images=scoring_images)
    plan = fitted.plan(sparsity)
    compressed, _ = fitted.compress(plan)
    if not plan.untouched:
        try:
            recover(compressed, Context(lambda: inputs.tensor_split(-(-len(inputs) // batch_size))))
        except InputError:
            raise
        except ValueError as error:  # batch norm in train mode refuses a single value a channel
            raise InputError(f"recovery={recover.name}: {str(error).splitlines()[0]}") from error
    report = fitted.report(plan, fitted.sizes(compressed, plan))
    compressed = compressed[0] if alone else compressed
    compressed.lrp_report = report
    return compressed, report


def calibration_inputs(calibration: Tensor | Iterable[Any], count: int) -> Tensor:
    """The first ``count`` examples (B, ...). Raises InputError where there are none or batches do not fit together."""
    if isinstance(calibration, Tensor):
        batches: Iterable[Any] = [calibration]
    elif isinstance(calibration, Iterable) and not isinstance(calibration, (str, bytes, Mapping)):
        batches = calibration
    else:
        raise InputError("calibration", type(calibration).__name__, "a tensor, a DataLoader or an iterable of batches is needed")
    found: list[Tensor] = []
    for batch in batches:
        first = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
        if not isinstance(first, Tensor) or first.dim() == 0:
            what = f"tensor of shape {tuple(first.shape)}" if isinstance(first, Tensor) else type(first).__name__
            raise InputError(
                f"calibration: a batch holds a {what}, but a tensor of examples is needed; wrap a network that takes more than one input"
            )
        kinds = [f"{tuple(part.shape[1:])} {str(part.dtype).removeprefix('torch.')} on {part.device}" for part in (*found[:1], first)]
        if len(set(kinds)) > 1:
            raise InputError(f"calibration: batches differ, their examples are {' and '.join(kinds)}")
        found.append(first.detach())
        if sum(len(part) for part in found) >= count:
            break
    if not sum(len(part) for part in found):
        raise InputError("calibration: it is empty, at least one example is needed")
    return torch.cat(found)[:count]


@torch.no_grad()
def check_inputs(model: nn.Module, inputs: Tensor) -> None:
    """Raises InputError for inputs on another device than the network, that are not finite, or that it cannot run on."""
    device = next((tensor.device for tensor in [*model.parameters(), *model.buffers()]), inputs.device)
    if device != inputs.device:
        raise InputError(f"calibration: the inputs are on {inputs.device}, the network on {device}; one device is needed")
    if inputs.is_floating_point() and not bool(torch.isfinite(inputs).all()):
        raise InputError("calibration: the inputs hold values that are not finite")
    modes = {module: module.training for module in model.modules()}
    try:
        run_model(model.eval(), inputs[:1], "calibration: ")
    finally:
        for module, mode in modes.items():
            module.training = mode
