"""How much is gathered at once."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn

from lrp.batches import Batches, call, cut, examples, tensors
from lrp.files import sha256
from lrp.network.arithmetic import layer_input, memory_of
from lrp.network.paused import ALIVE
from lrp.network.survey import Candidates


def groups(candidates: Candidates, needs: Set[str], memory: float) -> list[list[str]]:
    """The layers in the order in which they run, in groups whose sums take so many bytes, or one layer each."""
    found, held = list[list[str]](), 0
    for name, matrix in candidates.matrices.items():
        M, N = matrix.shape
        squares = M * M * len(needs & {"gradients", "products"}) + matrix.groups * N * N * ("inputs" in needs and not matrix.lookup)
        if not found or held + 8 * squares > memory:
            found.append([])
            held = 0
        found[-1].append(name)
        held += 8 * squares
    return found


def few_samples(candidates: Candidates, inputs: Batches, samples: int) -> dict[str, tuple[int, int]]:
    """Of every layer with fewer than three times as many samples as columns: both. Examples that are the same count once."""
    most, tokens = -(-samples // len(inputs)), inputs.counted()
    looked = {name: min(candidates.positions[name], most) for name in candidates.matrices}
    if tokens is not None:  # padding is not looked at
        fewer = max(1, round(float(tokens.sum(1).clamp(max=most).double().mean())))
        looked |= {name: fewer for name in looked if candidates.positions[name] == tokens.shape[1]}
    columns = {name: matrix.weight.shape[1] for name, matrix in candidates.matrices.items() if not matrix.lookup}
    if not columns:
        return {}
    enough = max(-(-3 * columns[name] // looked[name]) for name in columns)  # different examples: more need not be counted
    seen: set[str] = set()
    for batch in inputs.split(64):
        if len(seen) >= enough:
            break
        seen |= {sha256(tensors(cut(batch, i, i + 1))) for i in range(examples(batch))}
    return {name: (len(seen) * looked[name], N) for name, N in columns.items() if len(seen) * looked[name] < 3 * N}


def images_at_once(twin: nn.Module, names: Sequence[str], inputs: Batches, with_gradients: bool, memory: float, most: int) -> int:
    """How many images run at once within so many bytes, by what one of them holds: ``most`` or half of it, again and again."""
    if memory == float("inf"):
        return most
    modules, example = dict(twin.named_modules()), inputs.example
    held, seen = dict[int, int](), [0]

    def count(value: Tensor) -> Tensor:
        place, size = memory_of(value)
        held[place] = size
        return value.detach()  # itself it would hold the graph that holds it

    def look(module: Any, args: Any, kwargs: Any, z: Tensor) -> Tensor | None:
        seen.extend([memory_of(layer_input(args, kwargs))[1], memory_of(z)[1]])
        return (z.requires_grad_() if z.is_leaf else z).clone() if with_gradients else None

    handles = [modules[name].register_forward_hook(look, with_kwargs=True) for name in names]
    try:
        with torch.inference_mode(False), torch.set_grad_enabled(with_gradients):
            with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
                call(twin, example)
    finally:
        for handle in handles:
            handle.remove()
    known = {memory_of(parameter)[0] for parameter in twin.parameters()}
    each = sum(size for place, size in held.items() if place not in known) + sum(seen[2::2]) if with_gradients else 0
    chunk = most
    while chunk > 1 and chunk * max(each, ALIVE * max(seen)) > memory:
        chunk //= 2
    return chunk
