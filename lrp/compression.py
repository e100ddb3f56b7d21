"""One call: a network in, a smaller one and a report out."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lrp.batches import Batches, device_of, odd_layout, tensors
from lrp.config.method import default_option, make_method
from lrp.config.parts import make
from lrp.cost.costs import check_budget_of
from lrp.cost.report import Report
from lrp.errors import InputError, called, check_int, check_sparsity, first_line, own_code
from lrp.evidence import Evidence
from lrp.group import Group
from lrp.heap import given_back
from lrp.inputs import Arguments, Each
from lrp.job.calibration import Calibration
from lrp.job.together import check_together
from lrp.layer.build import find_kind
from lrp.layer.duplicate import check_module, duplicate, ordinary_modes
from lrp.method.base import FittedMethod, Method
from lrp.network.arithmetic import in_one_sentence, run_model
from lrp.network.wrappers import unwrap
from lrp.recovery.base import Recovery
from lrp.recovery.context import Context
from lrp.search.base import Search
from lrp.standin.replace import put_back, with_stand_ins

DEFAULT = Calibration()
log = logging.getLogger(__name__)


@called("estimator.output_fn", "output")
def compress(
    model: nn.Module,
    calibration: Any,
    sparsity: float = 0.5,
    *,
    method: str | Method = "output_aware",
    blocking: Any = None,
    decomposition: Any = None,
    scorer: Any = None,
    estimator: Any = None,
    selection: Any = None,
    compensation: Any = None,
    recovery: str | Recovery = "none",
    search: str | Search = "none",
    budget: str = "params",
    budget_of: str = "layers",
    macs_removed: float | None = None,
    forms: str | Sequence[str] | None = None,
    exclude: Sequence[str] | None = (),
    output: Callable[[Any], Tensor] | None = None,
    inputs: Callable[[Any], Any] | None = None,
    images: int = DEFAULT.images,
    scoring_images: int = DEFAULT.scoring_images,
    samples: int = DEFAULT.samples,
    batch_size: int = DEFAULT.batch_size,
    group: Any = None,
) -> tuple[nn.Module, Report]:
    """A smaller copy of a network by low-rank pruning, and what was done to each layer. The original is untouched.

    Args:
        model: The network, on the device of its calibration examples. Of one that torch.compile, DataParallel,
            DistributedDataParallel or AveragedModel wraps, the network inside.
        calibration: Unlabelled examples as the network takes them: a tensor or an array (B, ...), a tuple of positional or a mapping
            of keyword arguments that hold tensors, or a Dataset, DataLoader, list or iterable of batches. Of a batch that is a tuple or
            a list the entries that the network's forward requires go in, at least the first; a tensor (B,) after them is the labels.
            Batches of dicts with an ``attention_mask`` may differ in length, and padding does not count.
        sparsity: The share to remove, in [0, 1), of what ``budget`` names, in the compressed layers or in the whole network.
        method: The name of a method (as on the command line, with the same defaults), or a method. "output_aware" is the most
            accurate one here.
        blocking, decomposition, scorer, estimator, selection, compensation: Parts that differ from those of the method: names of
            options or configured objects such as ``GlobalSelection(round_to=8)``.
        search: What sets options by trial: "none", or "coordinate", which compresses the network a dozen times on half of the examples and
            takes the options that move the outputs least on the other half; or an object.
        recovery: What is done to the compressed network: "none", "batchnorm", or an object.
        budget: "params", "macs" for multiply-accumulates, or, with parts that know forms, "milliseconds": the layers' time, measured on
            this machine.
        budget_of: "layers": ``sparsity`` is a share of what the layers have that are compressed; "network": of what the whole network
            has, with all that is left alone.
        macs_removed: With ``budget="params"``: the share of the multiply-accumulates that has to go as well.
        forms: In which forms a layer may be stored, of each the one that loses least: one or several of "matrix", "tucker2", "spatial",
            "nested", "pivoted", "tucker2_pivoted", "spatial_pivoted"; "auto": the best that the method's parts know of; None: those of the
            method.
        exclude: Names of layers, of modules that contain them, or shell patterns: they are left alone.
        output: Finds the tensor to preserve in what the network returns, where that is a tuple, or a dict without "logits" and
            "last_hidden_state".
        inputs: Says of a batch what the network is called with, where it holds more than that: a function of the batch to a tensor, a
            tuple of positional arguments, a dict of keyword arguments, or a tuple and a dict. A list of tensors is one of each example.
        images: How many of the examples are used, or as many as there are.
        scoring_images: How many of them scores look at.
        samples: About how many positions of each layer's output decomposition and compensation look at, in all examples together:
            use several times the columns of the widest layer matrix.
        batch_size: How many examples the recovery looks at at a time.
        group: A ``torch.distributed.ProcessGroup`` whose processes share the work: each calls this with the same network and the same
            examples, looks at its own part of them, 128 at a time, and gets the same result. None: this process alone.

    Returns:
        The compressed network, in the modes (train, eval) of the original, module by module, which carries the report as
        ``lrp_report``; and the report.

    Raises:
        InputError: In one sentence, for input that cannot be used.
    """
    share = check_sparsity("sparsity", sparsity.item() if isinstance(sparsity, Tensor) and sparsity.numel() == 1 else sparsity)
    check_budget_of(budget_of)
    fitted = fit(
        model, calibration, method=method, blocking=blocking, decomposition=decomposition, scorer=scorer, estimator=estimator,
        selection=selection, compensation=compensation, recovery=recovery, search=search, budget=budget, macs_removed=macs_removed,
        forms=forms, exclude=exclude, output=output, inputs=inputs, images=images, scoring_images=scoring_images, samples=samples,
        batch_size=batch_size, group=group,
    )  # fmt: skip
    return fitted.compress(share, budget_of, last=True)


@dataclass
class Fitted:
    """A network that was looked at once, to be compressed to any sparsity."""

    original: nn.Module
    batches: Batches
    method: FittedMethod
    recovery: Recovery
    batch_size: int
    alone: bool  # the network is one layer, which stands in a Sequential

    def compress(self, sparsity: float = 0.5, budget_of: str = "layers", last: bool = False) -> tuple[nn.Module, Report]:
        """A smaller copy, and what was done to each layer: as ``lrp.compress`` says. ``last``: no other is to come, so that what only a
        further one would need is let go of first.

        Raises:
            InputError: As ``lrp.compress``.
        """
        share, fitted = check_sparsity("sparsity", sparsity), self.method
        check_budget_of(budget_of)
        fitted.evidence.group.check_same(lambda: (share, budget_of), "sparsities")
        with ordinary_modes():
            with given_back(), in_one_sentence(self.original):
                plan = fitted.plan_of(share, budget_of).once(fitted.forget if last else None)
                compressed, _ = fitted.compress(plan)
            if not plan.untouched:
                _recover(self.recovery, compressed, self.batches, self.batch_size)
            report = fitted.report(plan, fitted.sizes(compressed, plan))
        result = put_back(next(compressed.children()) if self.alone else compressed, self.original)
        result.lrp_report = report
        return result, report


@called("estimator.output_fn", "output")
def fit(
    model: nn.Module,
    calibration: Any,
    *,
    method: str | Method = "output_aware",
    blocking: Any = None,
    decomposition: Any = None,
    scorer: Any = None,
    estimator: Any = None,
    selection: Any = None,
    compensation: Any = None,
    recovery: str | Recovery = "none",
    search: str | Search = "none",
    budget: str = "params",
    macs_removed: float | None = None,
    forms: str | Sequence[str] | None = None,
    exclude: Sequence[str] | None = (),
    output: Callable[[Any], Tensor] | None = None,
    inputs: Callable[[Any], Any] | None = None,
    images: int = DEFAULT.images,
    scoring_images: int = DEFAULT.scoring_images,
    samples: int = DEFAULT.samples,
    batch_size: int = DEFAULT.batch_size,
    group: Any = None,
) -> Fitted:
    """Look at a network once: ``lrp.fit(model, calibration).compress(0.5)`` is ``lrp.compress(model, calibration, 0.5)``, and a further
    ``compress(0.8)`` of the result costs no statistics and no scores. The arguments are those of ``lrp.compress``.

    Raises:
        InputError: As ``lrp.compress``.
    """
    together = Group(group)
    with together.agreed():
        check_int("scoring_images", scoring_images, 1)
        check_int("images", images, 1)
        check_int("samples", samples, 1)
        check_int("batch_size", batch_size, 2)
        check_module(model)
        parts = {
            "blocking": blocking, "decomposition": decomposition, "scorer": scorer, "estimator": estimator, "selection": selection,
            "compensation": compensation,
        }  # fmt: skip
        if not isinstance(exclude, Iterable | None):
            raise InputError("exclude", exclude, "give names of layers")
        exclude = tuple([exclude] if isinstance(exclude, str) else exclude or ())
        shared = {"budget": budget, "macs_removed": macs_removed, "forms": forms, "exclude": exclude, "samples": samples}
        chosen = make_method(method, {group: part for group, part in parts.items() if part is not None}, shared, output)
        recover, find = make("recovery", recovery), make("search", search)
        searched = find(chosen, getattr(chosen, "estimator", None) or make("estimator", default_option("estimator"), output_fn=output))
        for word in getattr(getattr(chosen, "estimator", None), "unread", ()):
            log.warning("estimator: output=logits does not use %s", word)
        original = unwrap(model)
        batches = Batches.of(calibration, images, model=original, inputs=inputs)
        model = with_stand_ins(original, batches.example)
        kind = find_kind(model)
        alone = kind is not None and kind.form(model) is not None
        if alone:  # a network of one layer has no place in which another could be put
            model = nn.Sequential(model)
        with ordinary_modes():
            check_inputs(model, batches, calibration)
    with ordinary_modes():
        together.check_same(lambda: [_without_addresses(searched), images, scoring_images], "options")
        check_together(together, model, batches)
        with given_back(), in_one_sentence(model):
            fitted = searched.fit(Evidence(model, batches, scoring_images=scoring_images, group=together))
    return Fitted(original, batches, fitted, recover, batch_size, alone)


def _without_addresses(value: Any) -> str:
    """What an object is called, also where it holds functions, which lie elsewhere in each process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _of_one_size(calibration: Any) -> bool:
    """Whether a list holds several tensors of one shape: batches, or single examples."""
    given = calibration if isinstance(calibration, list) else []
    return len(given) > 1 and all(isinstance(each, Tensor) for each in given) and len({each.shape for each in given}) == 1


def _recover(recover: Recovery, compressed: nn.Module, batches: Batches, batch_size: int) -> None:
    try:
        with own_code(f"recovery={recover.name}", recover):
            recover(compressed, Context(lambda: batches.even(batch_size)))
    except InputError:
        raise
    except ValueError as error:  # batch norm in train mode refuses a single value a channel
        raise InputError(f"recovery={recover.name}: {first_line(error)}") from error


@torch.no_grad()
def check_inputs(model: nn.Module, batches: Batches, calibration: Any = None) -> None:
    """That a network can run on these examples; ``calibration`` is what they were given as.

    Raises:
        InputError: For examples on another device than the network, that are not finite, or that it cannot run on.
    """
    for batch in batches.split(256):
        for leaf in tensors(batch):
            if device_of(model, leaf.device) != leaf.device:
                where = device_of(model, leaf.device)
                raise InputError(f"calibration: the inputs are on {leaf.device}, the network on {where}; move one to the other's device")
            if leaf.is_floating_point() and not bool(torch.isfinite(leaf.float() if leaf.element_size() == 1 else leaf).all()):
                raise InputError("calibration: the inputs hold values that are not finite")
    tokens = batches.counted()
    if tokens is not None and not bool(tokens.any()):
        raise InputError("calibration: no token counts, attention_mask is 0 everywhere; give 1 where a token counts")
    if tokens is not None and (silent := int((~tokens.any(1)).sum())):
        log.warning("of %d of %d calibration examples no token counts, their attention_mask is 0 everywhere", silent, len(tokens))
    example, twin = batches.example, duplicate(model).eval()
    try:
        output = run_model(twin, example, "calibration: ")
        if _of_one_size(calibration) or isinstance(example, Tensor) and len(batches) > 1:  # one image (1, H, W) passes for a batch of one
            run_model(twin, batches.take(2).whole(), "calibration: ")
    except InputError as error:
        if _of_one_size(calibration):
            raise InputError(
                f"{error}; a list holds batches: give torch.stack(calibration) where its entries are single examples, or "
                "inputs=lambda x: [x] where the network takes a list of them"
            ) from error
        if batches.more or isinstance(example, Mapping | Arguments | Each):
            hint = "inputs=lambda batch: ... says what of a batch goes into the network"
            raise InputError(f"{error}; {hint}") from error
        raise
    found = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and not odd_layout(leaf) and leaf.is_floating_point()]
    if any(bool(leaf.isnan().any()) for leaf in found):
        if all(bool(torch.isfinite(weight).all()) for weight in model.parameters() if weight.dim() > 1):  # else the layer is named
            raise InputError("calibration: what the network gives for the first example is not a number (NaN)")
