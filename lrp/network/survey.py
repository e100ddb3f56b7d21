"""Which layers of a network are compressed, and why the others are left alone."""

from __future__ import annotations

import copy
import fnmatch
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lrp.batches import Inputs
from lrp.errors import InputError
from lrp.layer.base import LowRank
from lrp.layer.build import find_kind, kind_of, layer_matrices, unsupported
from lrp.matrices import LayerMatrix
from lrp.network.arithmetic import run_model


@dataclass(frozen=True)
class Candidates:
    """``matrices`` of the layers to compress, in the order in which they run; of every Linear and convolution that runs the number
    of ``positions`` at which it computes its output for one example and the shape (1, ...) of its input; and of each layer
    ``left`` alone the reason."""

    matrices: dict[str, LayerMatrix]
    positions: dict[str, int]
    inputs: dict[str, tuple[int, ...]]
    left: dict[str, str]


def find_candidates(model: nn.Module, example: Inputs, exclude: Sequence[str] = ()) -> Candidates:
    """Every layer that holds a weight (a parameter of two or more dimensions), as one to compress or one to leave.

    Left alone are types that lrp does not compress, depthwise convolutions, layers named by ``exclude`` (names, names of
    modules that contain them, or shell patterns), tied weights, layers that run twice and layers that do not run on
    ``example`` (1, ...), an input of the network.

    Raises:
        InputError: For a name in ``exclude`` that matches nothing, and for an example on which the network cannot run.
    """
    low_rank = [name for name, module in model.named_modules() if isinstance(module, LowRank)]
    modules = {
        name: module
        for name, module in model.named_modules()
        if name in low_rank or any(p is not None and p.dim() > 1 for p in module._parameters.values())
    }
    modules = {name: module for name, module in modules.items() if not any(name.startswith(f"{parent}.") for parent in low_rank)}
    excluded = set()
    for pattern in exclude:
        fits = [name for name in modules if fnmatch.fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")]
        if not fits:
            raise InputError("exclude", pattern, f"no layer has this name; the layers are {', '.join(modules)}")
        excluded.update(fits)
    holders = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    matrices = layer_matrices(model)
    counted = [name for name, module in modules.items() if name not in low_rank and find_kind(module) is not None]
    calls, positions, inputs = _run(model, example, counted)
    left = {}
    for name, module in modules.items():
        reason = "low rank already" if name in low_rank else unsupported(module)
        if reason is None and name in excluded:
            reason = "excluded"
        elif reason is None and holders[id(module.weight)] > 1:
            reason = "tied weight"
        elif reason is None and calls[name] > 1:
            reason = "used twice"
        elif reason is None and calls[name] == 0:
            reason = "not called on the calibration inputs"
        if reason is not None:
            left[name] = reason
    chosen = {name: matrices[name] for name in positions if name in matrices and name not in left}
    return Candidates(chosen, positions, inputs, left)


@torch.no_grad()
def _run(model: nn.Module, example: Inputs, names: Sequence[str]) -> tuple[Counter[str], dict[str, int], dict[str, tuple[int, ...]]]:
    """How often each layer is called when the network runs on one example, at how many positions, on what shape."""
    twin = copy.deepcopy(model).eval()
    calls: Counter[str] = Counter()
    positions: dict[str, int] = {}
    inputs: dict[str, tuple[int, ...]] = {}

    def watch(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], module: nn.Module, output: Tensor) -> None:
        calls[name] += 1
        positions[name] = positions.get(name, 0) + kind_of(module).positions(module, output)
        inputs[name] = tuple((args[0] if args else kwargs["input"]).shape)

    for name in names:
        twin.get_submodule(name).register_forward_hook(
            lambda module, args, kwargs, output, name=name: watch(name, args, kwargs, module, output), with_kwargs=True
        )
    run_model(twin, example)
    return calls, positions, inputs
