"""Which layers of a network are compressed, and why the others are left alone."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lrp.batches import Inputs, examples
from lrp.errors import InputError
from lrp.inputs import alike
from lrp.layer.build import find_kind, kind_of, layer_matrices, own_weights, replace_layer, ties, unsupported
from lrp.layer.compressed import Compressed
from lrp.layer.duplicate import duplicate
from lrp.layer.references import held_elsewhere
from lrp.matrices import LayerMatrix, Use
from lrp.network.arithmetic import layer_input, run_model
from lrp.network.disguise import as_it_is, copied, disguised


@dataclass(frozen=True)
class Candidates:
    """What lrp can do with a network's layers.

    Attributes:
        matrices: Of the layers to compress, in the order in which they run.
        positions: Of every Linear and convolution that runs: at how many positions it computes its output for one example.
        inputs: The shape (1, ...) of what it reads, in its last call.
        left: Of each layer that is left alone the reason.
        calls: How often each runs on one example; 0: not on the first one.
        read: How many numbers each reads for one example.
        writes: Whether a forward writes into parameters.
    """

    matrices: dict[str, LayerMatrix]
    positions: dict[str, int]
    inputs: dict[str, tuple[int, ...]]
    left: dict[str, str]
    calls: Mapping[str, int] = field(default_factory=dict)
    read: Mapping[str, int] = field(default_factory=dict)
    writes: bool = True

    def places(self, name: str) -> int:
        """How many positions a layer's input has for one example."""
        matrix = self.matrices[name]
        return self.read[name] // (matrix.channels * matrix.groups)

    def without(self, reasons: Mapping[str, str]) -> Candidates:
        """The same with more layers left alone, for these reasons; one of several that hold one weight leaves the others alone as well."""
        kept, left = {}, dict(self.left)
        for name, matrix in self.matrices.items():
            among = [name, *(use.name for use in matrix.uses)]
            if not any(each in reasons for each in among):
                kept[name] = matrix
            else:
                left |= {each: reasons.get(each, TIED) for each in among}
        return replace(self, matrices=kept, left=left)


TIED = "tied weight"
NOT_CALLED = "not called on the first calibration examples"
NO_LOOKUP = "it looks vectors up, which multiplies nothing, and these parts or this budget do not treat that"


def find_candidates(
    model: nn.Module,
    example: Inputs,
    exclude: Sequence[str] = (),
    more: Callable[[], Inputs] | None = None,
    lookups: bool = False,
    tied: bool = False,
) -> Candidates:
    """Every layer that holds a weight (a parameter of two or more dimensions), as one to compress or one to leave.

    Left alone are types that lrp does not compress, depthwise convolutions, layers named by ``exclude`` (names, names of
    modules that contain them, or shell patterns), tied weights, layers that do not run on ``example`` (1, ...), an input
    of the network, or on the batch of ``more()``, those whose hooks change their outputs, and those that the network calls from
    where lrp cannot put another layer.

    ``lookups``: whether embeddings are compressed too. ``tied``: whether layers that hold one weight are: the matrix is then that of one of
    them, an embedding where there is one, and the others are its ``uses``; some of these need not run.

    Raises:
        InputError: For a name in ``exclude`` that matches nothing, and for an example on which the network cannot run.
    """
    low_rank = [name for name, module in model.named_modules() if isinstance(module, Compressed)]
    modules = {name: module for name, module in model.named_modules() if name in low_rank or own_weights(module)}
    modules = {name: module for name, module in modules.items() if not any(name.startswith(f"{parent}.") for parent in low_rank)}
    excluded = set()
    for pattern in exclude:
        fits = [name for name in modules if fnmatch.fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")]
        if not fits:
            raise InputError("exclude", pattern, f"no layer has this name; the layers are {', '.join(modules)}")
        excluded.update(fits)
    holders = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    matrices, groups = layer_matrices(model), ties(model) if tied else []
    together = {name for names in groups for name in names}
    counted = [name for name, module in modules.items() if name not in low_rank and find_kind(module) is not None]
    seen = _run(model, example, counted, excluded)
    if more is not None and any(seen.calls[name] == 0 for name in counted):
        batch = more()
        seen.add(_run(model, batch, counted, excluded), examples(batch))
    left = {}
    for name, module in modules.items():
        reason = "compressed already" if name in low_rank else unsupported(module)
        if reason is None and name in excluded:
            reason = "excluded"
        elif reason is None and matrices[name].lookup and not lookups:
            reason = NO_LOOKUP
        elif reason is None and holders[id(module.weight)] > 1 and name not in together:
            reason = TIED
        elif reason is None:
            reason = seen.reason(name)
        if reason is not None:
            left[name] = reason
    open_: dict[str, Any] = {name: modules[name].weight for name in seen.positions if name in matrices and name not in left}
    outside = held_elsewhere(model, open_.values())
    left |= {name: "its weight is also held outside of the layer" for name, weight in open_.items() if id(weight) in outside}
    first = _first_of(groups, modules, seen, left)
    chosen = {}
    for name in seen.positions:
        if name in matrices and name not in left and name not in together - first.keys():
            at = _multiplied_at(name, modules, seen)
            matrix = matrices[name] if at == seen.positions[name] else replace(matrices[name], places=at)
            chosen[name] = replace(matrix, uses=first[name]) if name in first else matrix
    return Candidates(chosen, seen.positions, seen.inputs, left, seen.calls, seen.read, seen.writes)


def _multiplied_at(name: str, modules: Mapping[str, Any], seen: _Seen) -> int:
    if name not in seen.positions:
        return 0
    return kind_of(modules[name]).multiplied_at(modules[name], seen.positions[name], seen.inputs[name])


def _first_of(groups: Sequence[Sequence[str]], modules: Mapping[str, Any], seen: _Seen, left: dict[str, str]) -> dict[str, tuple[Use, ...]]:
    """Of each group of layers that hold one weight the one whose matrix counts, the first lookup or layer that runs, and the others; or,
    where one of them has to be left alone for more than that it does not run, all of them are ``left``."""
    found: dict[str, tuple[Use, ...]] = {}
    for names in groups:
        running = [name for name in seen.positions if name in names]
        lookups = [name for name in names if kind_of(modules[name]).lookup]
        able = [name for name in running if not lookups or name in lookups]
        if not able or any(left.get(name, NOT_CALLED) != NOT_CALLED for name in names):
            for name in names:
                left.setdefault(name, TIED)
            continue
        uses = []
        for name in names:
            left.pop(name, None)
            if name != able[0]:
                turned = bool(lookups) and name not in lookups
                uses.append(Use(name, seen.positions.get(name, 0), _multiplied_at(name, modules, seen), turned))
        found[able[0]] = tuple(uses)
    return found


class _Seen:
    """What layers did when the network ran on one example.

    Attributes:
        calls: How often each was called.
        positions: At how many positions each computed its output, in all calls.
        read: How many numbers each read, in all calls.
        inputs: The shapes of what they read last.
        shared: Those of the original that a copy of the network called.
        elsewhere: Those that were called from where no other layer can be put.
        changed: Those whose forward hooks gave another output.
        late: Those that ran on a later example alone.
        asked: Those that do not run once they are of another type.
        sized: Those that were asked for an output of another size than they give by themselves.
        writes: Whether a parameter held other numbers afterwards.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.positions: dict[str, int] = {}
        self.read: Counter[str] = Counter()
        self.inputs: dict[str, tuple[int, ...]] = {}
        self.elsewhere: set[str] = set()
        self.shared: set[str] = set()
        self.changed: set[str] = set()
        self.late: set[str] = set()
        self.asked: set[str] = set()
        self.sized: set[str] = set()
        self.writes = False

    def add(self, others: _Seen, count: int) -> None:
        """What layers did on ``count`` more examples: the counts of those that did nothing before, and whatever speaks against any."""
        for name in others.calls.keys() - self.calls.keys():
            self.positions[name] = max(1, others.positions[name] // count)
            self.read[name], self.inputs[name] = max(1, others.read[name] // count), others.inputs[name]
            self.late.add(name)
        self.changed |= others.changed
        self.writes |= others.writes
        self.elsewhere |= others.elsewhere
        self.shared |= others.shared
        self.asked |= others.asked
        self.sized |= others.sized

    def reason(self, name: str) -> str | None:
        """Why a layer has to be left alone after what it did."""
        if name in self.elsewhere:
            return "called from where no other layer can be put (a closure holds it)"
        if name in self.shared:
            return "called through a closure, which every copy of the network shares with the original"
        if name in self.asked:
            return "the network asks of what type it is"
        if name in self.sized:
            return "the network asks it for an output of another size than its own"
        if self.calls[name] == 0 and name not in self.late:
            return NOT_CALLED
        return "a forward hook changes its output" if name in self.changed else None

    def watch(self, name: str, module: nn.Module, layer: nn.Module) -> None:
        """Look at all calls of a module in the place of a layer."""
        own: list[Tensor] = []

        def first(module: nn.Module, args: Any, output: Tensor) -> None:
            own[:] = [output, output.clone()]

        def last(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
            if not output.numel():
                return  # an expert that no row chose has done nothing yet
            self.calls[name] += 1
            self.positions[name] = self.positions.get(name, 0) + kind_of(layer).positions(layer, output)
            self.inputs[name] = tuple(layer_input(args, kwargs).shape)
            self.read[name] += layer_input(args, kwargs).numel()
            if kind_of(layer).sized and layer.forward(layer_input(args, kwargs)).shape != output.shape:
                self.sized.add(name)
            if own and (output is not own[0] or not torch.equal(output, own[1])):
                self.changed.add(name)

        if module._forward_hooks:
            module.register_forward_hook(first, prepend=True)
        module.register_forward_hook(last, with_kwargs=True)


@torch.no_grad()
def _run(model: nn.Module, example: Inputs, names: Sequence[str], same: Collection[str] = ()) -> _Seen:
    """What each layer does when the network runs on one example, with another module in the place of every layer, as after building: of
    another type, but for those that are to stay the ``same``.

    Raises:
        InputError: For a network that cannot run on it, for one that makes modules as it runs, and for one that does something else, or
            nothing, once its layers are of another type.
    """
    called, wanted = as_it_is(model, example, [*names])
    twin = duplicate(model).eval()
    copies = [*twin.parameters()]  # of a layer in whose place another stands as well: both hold them
    seen, replaced = _Seen(), set[str]()
    for name in names:
        layer = twin.get_submodule(name)
        if name == "" or unsupported(layer) is not None:
            seen.watch(name, layer, layer)
            continue
        other = disguised(layer) if name not in same else copied(layer)
        seen.watch(name, other, layer)
        layer.register_forward_pre_hook(lambda *_, name=name: seen.elsewhere.add(name))
        twin = replace_layer(twin, name, other)
        replaced.add(name)
    before = {name for name, _ in twin.named_modules()}
    handles = [
        model.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: seen.shared.add(name)) for name in names if name != ""
    ]
    failed, found = None, None
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found = run_model(twin, example)
    except InputError as error:
        failed = error
    finally:
        for handle in handles:
            handle.remove()
    asked = {name for name in called if name in replaced and seen.calls[name] == 0 and name not in seen.elsewhere | seen.shared}
    if asked - {*same}:
        again = _run(model, example, names, {*same, *asked})
        again.asked |= asked
        return again
    if failed is not None or not (alike(found, wanted) or not alike(wanted, as_it_is(model, example, [])[1])):
        what = "gives something else" if failed is None else f"cannot run ({failed.__cause__ or failed})"
        raise InputError(
            "model",
            type(model).__name__,
            f"it {what} once its layers are of another type: leave those that it asks about alone with exclude",
        )
    bounded = any(getattr(module, "max_norm", None) is not None for module in model.modules())  # which is seen on some examples alone
    seen.writes = bounded or not all(map(torch.equal, model.parameters(), copies))
    if made := sorted({name for name, _ in twin.named_modules()} - before):
        raise InputError(
            "model", type(model).__name__, f"it makes modules when it first runs ({', '.join(made)}); run it once on an example first"
        )
    return seen
