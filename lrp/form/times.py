"""The times of layers in every form."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from torch import nn
from tqdm import tqdm

from lrp.cost.layer_time import LayerTime, confirm, measure_layer
from lrp.form.base import Choices
from lrp.group import ALONE, Group
from lrp.layer.duplicate import duplicate, measured_copy
from lrp.network.survey import Candidates

log = logging.getLogger(__name__)


@dataclass
class Clock:
    """Says of all layers how long each way to store them takes, on this machine.

    Attributes:
        untimed: The choices of each layer, without times.
        model: The dense network.
        survey: Its layers.
        batch_size: How many examples run at a time.
        below: Left out are ways that take this share of the dense layer's time or longer; the dense layer stays, and so does the one with
            nothing kept, which is taken to need no time until it is chosen and timed.
        known: What has been measured: layers of one shape on inputs of one shape are timed once.
        group: The processes that need the same times; the first of them measures.
    """

    untimed: Mapping[str, Sequence[Choices]]
    model: nn.Module
    survey: Candidates
    batch_size: int
    below: float
    known: dict[str, LayerTime]
    group: Group = ALONE
    _keys: dict[str, str] = field(default_factory=dict)

    def measure(self) -> None:
        """Time a few ways of each form of each layer."""
        start = time.perf_counter()
        for name, held in tqdm(self.untimed.items(), desc="measuring layers", unit="layer", leave=False, disable=None):
            dense, size, shape = self.model.get_submodule(name), self._size(name), self.survey.inputs[name]
            inner = [np.flatnonzero((each.params > 0) & (each.params < size)) for each in held]
            forms = [each.form for each in held]
            self._keys[name] = key = repr((dense, self.survey.matrices[name].weight.dtype, shape, self.batch_size, forms))
            if key in self.known:
                continue
            dense = measured_copy(dense)
            work = [each.work[places] for each, places in zip(held, inner)]
            self.known[key] = self.group.by_first(partial(
                measure_layer, dense, shape, self.batch_size, work,
                lambda form, at, held=held, inner=inner, dense=dense: held[form].plan(int(inner[form][at])).build(duplicate(dense)),
            ))  # fmt: skip
        log.info("measuring the times of %d layers at batch %d took %.1f s", len(self._keys), self.batch_size, time.perf_counter() - start)

    def choices(self, confirmed: bool = False) -> dict[str, Sequence[Choices]]:
        """The choices of all layers with their times, measured or predicted from what was; or of these the ``confirmed`` ones alone."""
        return {name: [self._timed(name, form, confirmed) for form in range(len(held))] for name, held in self.untimed.items()}

    def confirm(self, choices: Mapping[str, Sequence[Choices]], chosen: Mapping[str, int]) -> int:
        """Time the ``chosen`` ways out of ``choices``, unless they have been (of each layer a place in those of all forms, one after the
        other); says how many of them were new."""
        count = 0
        for name, at in chosen.items():
            form = int(np.searchsorted(np.cumsum([len(each.loss) for each in choices[name]]), at, side="right"))
            i = at - sum(len(each.loss) for each in choices[name][:form])
            held, known = choices[name][form], self.known[self._keys[name]]
            way = form, tuple(map(int, held.work[i]))
            if way in known.confirmed or held.params[i] == self._size(name):
                continue
            dense = measured_copy(self.model.get_submodule(name))
            layer, shape = held.plan(i).build(duplicate(dense)), self.survey.inputs[name]
            known.confirmed[way] = self.group.by_first(partial(confirm, known, dense, layer, shape, self.batch_size))
            count += 1
        return count

    def _size(self, name: str) -> int:
        return self.survey.matrices[name].weight.numel()

    def _timed(self, name: str, form: int, confirmed: bool) -> Choices:
        choices, measured = self.untimed[name][form], self.known[self._keys[name]]
        whole, empty = choices.params == self._size(name), choices.params == 0
        nothing = measured.confirmed.get((form, (0,) * choices.work.shape[1]), 0.0)
        times = np.where(whole, measured.dense, np.where(empty, nothing, measured.predict(form, choices.work)))
        usable = times < self.below * measured.dense
        if confirmed:
            usable &= [(form, tuple(map(int, work))) in measured.confirmed for work in choices.work]
        at = np.flatnonzero(whole | empty | usable)
        return replace(
            choices, params=choices.params[at], macs=choices.macs[at], work=choices.work[at], loss=choices.loss[at],
            plan=lambda i: choices.plan(int(at[i])), nanoseconds=np.rint(times[at]).astype(np.int64),
        )  # fmt: skip
