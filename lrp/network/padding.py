"""Which layers read what is only padding, and cannot be told of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lrp.batches import Batches
from lrp.errors import InputError, some
from lrp.inputs import DECODER, MASK, Arguments, Inputs, arguments, counted
from lrp.layer.build import kind_of
from lrp.layer.duplicate import measured_copy
from lrp.network.arithmetic import run_model
from lrp.network.survey import Candidates

EXAMPLES = 8  # that are looked at


@torch.no_grad()
def padding_counts(model: nn.Module, survey: Candidates, batches: Batches) -> list[str]:
    """Sentences that say where padding counts in statistics: in layers that do not run at each token of the attention mask, such as those
    before a convolution over time or the experts of a mixture, where they change with what stands at tokens that do not count; and in a
    decoder with a mask of its own."""
    said: list[str] = []
    if counted(batches.example) is None:
        return said
    looked = decoded = False
    for batch in batches.split(EXAMPLES):
        mask, own = counted(batch), arguments(batch).kwargs.get(DECODER + MASK)
        if not decoded and isinstance(own, Tensor) and not bool(own.all()):
            decoded = True
            said.append(f"padding counts in the decoder: {DECODER + MASK} is not looked at; give examples of one length")
        if not looked and mask is not None and not bool(mask.all()):
            looked = True
            if names := _changed(model, survey, batch, mask):
                they = "it does" if len(names) == 1 else "they do"
                said.append(f"padding counts in {some(names, 3)}: {they} not run at each token of {MASK}; give examples of one length")
        if looked and (decoded or own is None):
            break
    return said


def _changed(model: nn.Module, survey: Candidates, batch: Inputs, mask: Tensor) -> list[str]:
    """The layers that have another number of places than ``mask`` (B, L), more than one, and give something else where the tokens that do
    not count are others."""
    names = [name for name in survey.matrices if survey.positions[name] not in (1, mask.shape[1])]
    if not names:
        return []
    twin = measured_copy(model, share=not survey.writes)
    held: dict[str, list[Tensor]] = {name: [] for name in names}

    def watch(name: str, module: nn.Module, output: Tensor) -> None:
        if kind_of(module).positions(module, output) != mask.numel():  # of a layer that runs several times some calls may
            held[name].append(output.clone())

    for name in names:
        twin.get_submodule(name).register_forward_hook(lambda *given, name=name: watch(name, given[0], given[-1]))
    found = []
    for inputs in (batch, _others(batch, mask)):
        try:
            run_model(twin, inputs)
        except InputError:  # other values cannot stand there: nothing is known
            return []
        found.append({name: values.copy() for name, values in held.items()})
        for values in held.values():
            values.clear()
    return [name for name in names if not _same(found[0][name], found[1][name])]


def _others(inputs: Inputs, mask: Tensor) -> Inputs:
    """The batch with other values where it is padded: of tokens one that counts, of anything else one more."""

    def other(name: str, value: Any) -> Any:
        own = isinstance(value, Tensor) and value.shape[:2] == mask.shape and name != MASK and not name.startswith(DECODER)
        if not own:
            return value
        padded = (value.flatten(0, 1)[mask.flatten().nonzero()[0]] if not value.is_floating_point() else value + 1).expand(value.shape)
        return torch.where(mask.view(*mask.shape, *[1] * (value.dim() - 2)), value, padded)

    given = arguments(inputs)
    return Arguments(given.args, {name: other(name, value) for name, value in given.kwargs.items()})


def _same(before: list[Tensor], after: list[Tensor]) -> bool:
    return len(before) == len(after) and all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True) for a, b in zip(before, after, strict=True)
    )
