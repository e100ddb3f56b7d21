"""Which features of a network's layers are one: what has to go with a filter when it goes."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import nn

from lrp.batches import Inputs
from lrp.errors import InputError, first_line
from lrp.layer.duplicate import measured_copy
from lrp.network.follow import Channels, Traced, Walk
from lrp.network.state import unchanged_state
from lrp.network.trace import name_of, trace

log = logging.getLogger(__name__)


def find_channels(model: nn.Module, inputs: Inputs, leave: Mapping[str, str] | None = None) -> Channels:
    """Follow every feature through the graph of a network, as ``inputs`` (1, ...) call it.

    Features that are added, multiplied or otherwise meet entry by entry are one channel; those of a depthwise convolution are the ones
    that it reads; of a grouped one the j-th of each group are one. What an operation other than a layer mixes with others cannot go.
    ``leave``: layers whose inputs and outputs stay as they are, with the reasons.

    What a layer or a buffer that only the training mode reads meets (an auxiliary classifier) is followed there, too.

    Raises:
        InputError: For a network that torch.fx cannot trace.
    """
    twin = measured_copy(model)
    try:
        traced = _trace(twin, inputs)
    except Exception as error:  # whatever the forward raised when it met a proxy
        reason = first_line(error)
        raise InputError(
            "model", type(model).__name__, f"torch.fx cannot trace it ({reason}), so it is not known what reads a filter"
        ) from error
    walk = Walk(twin, leave or {})
    walk.run(traced, inputs)
    for module in twin.modules():
        module.training = any(True for _ in module.children())  # what the network asks; norms and dropouts stay as they are
    try:
        trained = _trace(twin, inputs)
        if more := trained.reads - traced.reads:
            walk.leave = {**dict.fromkeys(more, "only in training mode"), **walk.leave}  # what constants add up to there is not known
            walk.run(trained, inputs)
    except Exception as error:
        log.warning(
            "torch.fx cannot follow %s in training mode (%s): what runs there alone may not fit the filters that are left",
            type(model).__name__,
            first_line(error),
        )
    return walk.result(traced.graph)


def _trace(twin: nn.Module, inputs: Inputs) -> Traced:
    with unchanged_state(twin):
        graph, modules = trace(twin, inputs), dict(twin.named_modules())
        attributes = {name_of(node) for node in graph.nodes if node.op == "get_attr"}
        layers = {name_of(node) for node in graph.nodes if node.op == "call_module"}
        held = {name for name in layers if any(True for _ in [*modules[name].parameters(), *modules[name].buffers()])}
        values = {name: getattr(twin.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in attributes}
        return Traced(graph, attributes | held, values)
