"""Which kind a layer is, and low-rank layers put in the places of dense ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from lrp.errors import InputError
from lrp.layer.base import LowRank
from lrp.layer.compressed import Compressed, Keeps
from lrp.layer.conv import ConvKind
from lrp.layer.conv_transpose import ConvTransposeKind
from lrp.layer.duplicate import duplicate
from lrp.layer.embedding import EmbeddingKind
from lrp.layer.kind import LayerKind
from lrp.layer.linear import LinearKind
from lrp.layer.references import out_of_reach, replace_references
from lrp.layer.tied import forget_ties
from lrp.matrices import Components, LayerMatrix, kept_rank

KINDS: Sequence[LayerKind] = (LinearKind(), ConvKind(), ConvTransposeKind(), EmbeddingKind())


def find_kind(module: nn.Module | None) -> LayerKind | None:
    """What kind of layer a module is, dense or compressed; None of one that lrp knows nothing about."""
    return next((kind for kind in KINDS if kind.owns(module)), None)


def kind_of(module: nn.Module) -> LayerKind:
    """The kind of a layer that is known to be one."""
    kind = find_kind(module)
    assert kind is not None, type(module).__name__
    return kind


def unsupported(module: nn.Module) -> str | None:
    """Why a module that holds weights of its own cannot be compressed; None where it can."""
    kind = find_kind(module)
    if kind is None:
        return f"type not supported ({type(module).__name__})"
    reason = kind.unsupported(module)
    return "its weight holds no numbers" if reason is None and not kind.matrix("", module).weight.numel() else reason


def own_weights(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of two or more dimensions that a module holds, or of which its weight is computed where it is parametrised."""
    held = [*module._parameters.values()]
    if isinstance(module, ParametrizationList):
        return []  # of the module around
    if is_parametrized(module):
        held += module.parametrizations.parameters()  # type: ignore[union-attr]
    return [parameter for parameter in held if parameter is not None and parameter.dim() > 1]


def layer_matrices(model: nn.Module) -> dict[str, LayerMatrix]:
    """The matrices of all layers that lrp can compress, by their name in ``named_modules``, in that order."""
    return {name: kind_of(module).matrix(name, module) for name, module in model.named_modules() if unsupported(module) is None}


def low_rank_layer(dense: nn.Module, factors: Sequence[Components], keep: Sequence[Tensor]) -> nn.Module:
    """The layer with only the kept components, in their form: ``dense`` itself where every block is stored whole."""
    if all(kept_rank(mask) is None for mask in keep):
        return dense
    form = kind_of(dense).form(dense, factors[0].layer_form)
    assert form is not None and issubclass(form, Keeps)
    layer = form(dense, form.holding(factors, keep))
    layer.fill(dense, factors, keep)
    return layer.train(dense.training)


def build(model: nn.Module, factors: Sequence[Components], keep: Sequence[Tensor]) -> nn.Module:
    """A copy of a network in which every layer holds only its kept components (masks (R,), a block each).

    A block that keeps all its components is stored whole, with its original weight; with all blocks whole the copy is the
    network bit for bit.

    Raises:
        ValueError: For a block whose factors would not be smaller but which lacks a component.
    """
    layers: Mapping[str, list[tuple[Components, Tensor]]] = defaultdict(list)
    for factor, mask in zip(factors, keep, strict=True):
        rank = kept_rank(mask)
        if rank is not None and factor.block.is_dense(rank):
            raise ValueError(f"layer {factor.block.layer}: block {factor.block.index} is stored whole but lacks components")
        layers[factor.block.layer].append((factor, mask))
    result = duplicate(model)
    for name, parts in layers.items():
        layer = low_rank_layer(result.get_submodule(name), [part[0] for part in parts], [part[1] for part in parts])
        result = replace_tied(result, name, layer)
    return result


def ties(model: nn.Module) -> list[list[str]]:
    """The names of the layers that hold one weight, of each weight that several hold and nothing else does, where they can be compressed
    together."""
    modules = dict(model.named_modules())
    holders = Counter(id(p) for module in modules.values() for p in module._parameters.values() if p is not None)
    groups: dict[int, list[str]] = {}
    for name, module in modules.items():
        kind, weight = find_kind(module), module._parameters.get("weight")
        if kind is not None and kind.ties and weight is not None and holders[id(weight)] > 1:
            groups.setdefault(id(weight), []).append(name)
    return [names for weight, names in groups.items() if len(names) == holders[weight]]


def transposed(first: nn.Module, other: nn.Module) -> bool:
    """Whether the layer matrix of one of two layers that hold one weight is the transpose of the other's."""
    return kind_of(first).lookup != kind_of(other).lookup


def replace_tied(model: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """As ``replace_layer``; the layers that hold the weight of the one that is replaced hold the factors of ``layer`` from then on."""
    group = next((names for names in ties(model) if name in names), []) if isinstance(layer, LowRank) else []
    model = replace_layer(model, name, layer)
    for other in group:
        if other != name:
            held = model.get_submodule(other)
            assert isinstance(layer, LowRank)
            model = replace_layer(model, other, kind_of(held).twin(held, layer).train(held.training))
    forget_ties(model, group)
    return model


def replace_layer(model: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """Put ``layer`` in a network's place ``name``, and wherever else the network holds the same module; the network, which is
    ``layer`` itself where it has no name.

    torch's transformer encoders read the weights of their Linear layers and attentions themselves when nothing is trained; one that
    holds another layer in such a place has to call it, so that short cut is closed.
    """
    if name == "":
        return layer
    old = model.get_submodule(name)
    for place in [place for place, module in model.named_modules(remove_duplicate=False) if module is old]:
        outer, _, own = place.rpartition(".")
        model.get_submodule(outer)._modules[own] = layer  # set_submodule asks the network's own __setattr__, which may refuse
    replace_references(model, old, layer)
    if not isinstance(layer, Compressed) and not isinstance(old, nn.MultiheadAttention):
        return model
    for path, parent in model.named_modules():
        if path == "" or name.startswith(path + "."):
            if isinstance(parent, nn.TransformerEncoderLayer) and isinstance(layer, Compressed):
                parent.activation_relu_or_gelu = 0
            if isinstance(parent, nn.TransformerEncoder):
                parent.use_nested_tensor = False
    return model


def check_reach(model: nn.Module, names: Iterable[str], what: str) -> None:
    """That ``replace_layer`` reaches all places from which a network may call these layers: for those who have no example to run it on.

    Raises:
        InputError: Beginning with ``what``, for a layer that a closure holds, or a slot.
    """
    layers = {name: model.get_submodule(name) for name in names}
    held = out_of_reach(model, layers.values())
    if held is not None:
        name = next(name for name, layer in layers.items() if layer is held)
        raise InputError(
            f"{what}: layer {name} is also held where no other can be put (in a closure or a slot), and would go on running there"
        )
