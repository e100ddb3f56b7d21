"""Layers held at a rank, from scratch or from a trained weight, while a network trains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lrp.blocking.none import Unblocked
from lrp.errors import InputError, check_rank
from lrp.layer.base import LowRank
from lrp.layer.build import check_reach, kind_of, replace_layer, unsupported
from lrp.layer.compressed import Compressed
from lrp.layer.duplicate import check_module, ordinary
from lrp.layer.tucker2 import Tucker2, hosvd
from lrp.partition import cut


def at_rank(dense: nn.Module, rank: int | tuple[int, int], init: str = "svd", generator: torch.Generator | None = None) -> Compressed:
    """A Linear, Conv1d or Conv2d as a layer W = U V held at ``rank`` (-1: one dense matrix), whose parameters train; a convolution
    in Tucker-2 form where ``rank`` is a pair, (input, output).

    ``init``: ``svd``, the truncated SVD of the layer's weight, of Tucker-2 the higher-order one; ``glorot``, all factors drawn anew by
    ``generator``. The bias is copied. A grouped convolution holds each group at the rank. Source: the paper, section 3.1; the switch
    of rank is the layer's ``set_rank``.

    Raises:
        InputError: For a rank that the layer cannot have, and for a layer of another kind.
    """
    reason = unsupported(dense)
    if reason is not None:
        raise InputError("layer", type(dense).__name__, f"must be a Linear, Conv1d or Conv2d ({reason})")
    _check_init(init)
    kind = kind_of(dense)
    if isinstance(rank, tuple | list):
        return _tucker2(dense, rank, init, generator)
    blocks = cut(Unblocked(), {"": kind.matrix("", dense)})
    target = check_rank("rank", rank, min(block.rank for block in blocks))
    layer = kind.low_rank(dense, [(block, None) for block in blocks])
    layer.fill(dense, [], [])
    if init == "svd":
        layer.set_rank(rank, generator=generator)
    else:
        weight = dense.weight
        assert isinstance(weight, Tensor)
        layer._hold([(block, target) for block in blocks], weight)
        layer.initialise(generator)
    return layer.train(dense.training)


def _tucker2(dense: Any, ranks: Sequence[int], init: str, generator: torch.Generator | None) -> Compressed:
    form = kind_of(dense).form(dense, "tucker2")
    if form is None or not issubclass(form, Tucker2):
        raise InputError("rank", ranks, f"a {type(dense).__name__} has no Tucker-2 form; give one rank")
    layer = form(dense, (1, 1))
    q, r = layer.check_ranks(ranks)
    if not bool(torch.isfinite(dense.weight).all()):
        raise InputError("rank", ranks, "the layer's weight holds values that are not finite, so that it cannot be decomposed")
    layer._hold((q, r), dense.weight)
    if init == "svd":
        layer.set_triples(hosvd(form.matrix_of(dense), layer.groups, math.prod(layer.kernel_size), q, r))
    else:
        layer.initialise(generator)
    return layer.train(dense.training)


def _check_init(init: str) -> None:
    if init not in ("svd", "glorot"):
        raise InputError("init", init, "choose svd or glorot")


@ordinary
def hold_rank(
    model: nn.Module, ranks: Mapping[str, int | tuple[int, int]], init: str = "svd", generator: torch.Generator | None = None
) -> nn.Module:
    """Replace the layers named by low-rank layers held at these ranks (see ``at_rank``), in place, and return the network.

    A layer that is low-rank already is switched by its ``set_rank`` and keeps its form. Make the optimiser afterwards: the parameters
    are new.

    Raises:
        InputError: For a name that the network does not have, for a rank that a layer cannot have, and for a layer that a closure of the
            network holds, where no other can be put; the network is then as it was.
    """
    check_module(model)
    if not isinstance(ranks, Mapping):
        raise InputError("ranks", ranks, "give a mapping of layers' names to ranks")
    _check_init(init)
    if not isinstance(generator, torch.Generator | None):
        raise InputError("generator", generator, "give a torch.Generator")
    made = {}
    for name, rank in ranks.items():
        try:
            layer = model.get_submodule(name)
        except AttributeError:
            raise InputError(
                "layer", name, f"the network has no such layer, it has {', '.join(n for n, _ in model.named_children())}"
            ) from None
        try:
            if isinstance(layer, LowRank):
                if isinstance(rank, tuple | list):
                    raise InputError("rank", rank, "the layer is held as one matrix and keeps that form; give one rank")
                layer.check_free(rank)
                check_rank("rank", rank, min(block.rank for block, _ in layer.blocks))
            elif isinstance(layer, Tucker2):
                layer.check_ranks(rank)
            elif isinstance(layer, Compressed):
                raise InputError("rank", rank, f"the layer is compressed already, in form {layer.form}, whose ranks stay")
            else:
                made[name] = at_rank(layer, rank, init, generator)
        except InputError as error:
            raise InputError(f"layer {name}: {error}") from None
    check_reach(model, [name for name in made if name], "hold_rank")
    for name, rank in ranks.items():
        if name in made:
            model = replace_layer(model, name, made[name])
        else:
            layer = model.get_submodule(name)
            assert isinstance(layer, LowRank | Tucker2)
            layer.set_rank(rank, generator=generator)  # type: ignore[arg-type]
    return model
