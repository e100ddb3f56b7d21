"""The moments of every component, kept on disk by content."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_structure

from lrp.batches import Inputs, tensors
from lrp.entries import read_entry, write_entry
from lrp.errors import InputError
from lrp.estimator.moments import Moments
from lrp.files import class_sources, remove_leftovers, sha256, version
from lrp.identity import computes
from lrp.locks import locked
from lrp.matrices import Components
from lrp.network.frozen import FrozenNetwork
from lrp.training import computed_by


def moments_key(network: FrozenNetwork, model: nn.Module, factors: Sequence[Components], images: Inputs, estimator: str) -> str:
    """Hash of all that determines the moments: the network and its weights, the blocks and their factors (by the weights
    and the cut), the images as the network sees them, the estimator with those of its options that matter, and what computes them.

    Of a network's code the hash takes the graph, or, where torch.fx cannot trace it, the source of its own modules' classes.
    """
    kinds = {factor.decomposition for factor in factors}
    device = computed_by(tensors(images)[0].device)
    parts: list[Tensor | str] = [f"moments-3|{estimator}|{' '.join(sorted(kinds))}|{device}|{model}"]
    if kinds - {"svd"}:  # what statistics made them is seen in the components alone
        parts += [tensor for factor in factors for tensor in factor.values]
    parts += [_sources(model), *computes(model.modules())] if network.untraced else [str(network.module.code)]
    for name, value in sorted(model.state_dict().items()):
        parts += [name, value]
    parts.append(repr([factor.block for factor in factors]))
    orders = {factor.block.layer: factor.block.order for factor in factors if factor.block.order is not None}
    if orders:
        parts.append(repr(orders))
    parts += tensors(images)
    if network.tied:
        parts.append(f"tied {sorted(network.tied.items())}")
    if not isinstance(images, Tensor):
        parts.append(str(tree_structure(images)))
    return sha256(parts)


def _sources(model: nn.Module) -> str:
    return "\n".join(class_sources(type(module) for module in model.modules() if not type(module).__module__.startswith("torch.")))


def cached_moments(
    folder: Path, key: str, factors: Sequence[Components], compute: Callable[[Path], tuple[list[Moments], float]]
) -> tuple[list[Moments], float]:
    """The moments stored under ``key``, or those that ``compute`` gives, which are then stored; and the seconds they took.

    ``compute`` gets a folder for its unfinished work. A second process that wants the same moments waits for the first; where locks do
    not hold it computes them too, and those that were stored first are the ones.

    Raises:
        InputError: For moments that are not finite, naming the first such layer; they are not stored.
    """
    file, partial = folder / f"{key}.safetensors", folder / f"{key}.partial"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f"{key}.lock"):
        remove_leftovers(folder, key)
        found = _stored(file, key, factors)
        if found is None:
            before = version(file)
            moments, seconds = compute(partial)
            tensors = {
                "first": torch.cat([m.first for m in moments]),
                "second": torch.cat([m.second for m in moments]),
                "seconds": torch.tensor(seconds, dtype=torch.float64),
                "projected": torch.tensor(any(m.projected for m in moments)),
            }
            if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
                raise InputError(_not_finite(factors, moments))
            found = None if version(file) == before else _stored(file, key, factors)
            if found is None:
                write_entry(file, tensors, key)
                found = moments, seconds
        shutil.rmtree(partial, ignore_errors=True)  # also where a kill fell between the two
        return found


def _stored(file: Path, key: str, factors: Sequence[Components]) -> tuple[list[Moments], float] | None:
    stored, ranks = read_entry(file, key), [factor.block.rank for factor in factors]
    if stored is None or not {"first", "second", "seconds", "projected"} <= stored.keys() or len(stored["first"]) != sum(ranks):
        return None
    parts = zip(stored["first"].split(ranks), stored["second"].split(ranks))
    return [Moments(first, second, bool(stored["projected"])) for first, second in parts], float(stored["seconds"])


def _not_finite(factors: Sequence[Components], moments: Sequence[Moments]) -> str:
    bad = (f.block.layer for f, m in zip(factors, moments) if not bool(torch.isfinite(m.first + m.second).all()))
    return f"layer {next(bad, 'unknown')}: without one of its components the network's outputs are not finite, so it cannot be scored"
