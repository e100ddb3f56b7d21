"""The times of layers in every form."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import nn
from tqdm import tqdm

from lrp.cost.layer_time import LayerTime, measure_layer
from lrp.form.base import Choices
from lrp.layer.duplicate import duplicate, measured_copy
from lrp.network.survey import Candidates

log = logging.getLogger(__name__)


def with_times(
    choices: Mapping[str, Sequence[Choices]],
    model: nn.Module,
    survey: Candidates,
    batch_size: int,
    below: float,
    known: dict[str, LayerTime],
) -> dict[str, Sequence[Choices]]:
    """The choices of all layers with their times at this batch size, measured on this machine or predicted from those that were.

    Left out are ways that take ``below`` of the dense layer's time or longer; the dense layer stays, and so does the one with nothing
    kept, which takes no time. ``known`` holds what has been measured: layers of one shape on inputs of one shape are timed once.
    """
    start, found = time.perf_counter(), {}
    for name, held in tqdm(choices.items(), desc="measuring layers", unit="layer", leave=False, disable=None):
        dense, size, shape = model.get_submodule(name), survey.matrices[name].weight.numel(), survey.inputs[name]
        inner = [np.flatnonzero((each.params > 0) & (each.params < size)) for each in held]
        key = repr((dense, survey.matrices[name].weight.dtype, shape, batch_size, [each.form for each in held]))
        if key not in known:
            dense = measured_copy(dense)
            work = [each.work[places] for each, places in zip(held, inner)]
            known[key] = measure_layer(
                dense, shape, batch_size, work,
                lambda form, at, held=held, inner=inner, dense=dense: held[form].plan(int(inner[form][at])).build(duplicate(dense)),
            )  # fmt: skip
        found[name] = [_timed(each, form, known[key], size, below) for form, each in enumerate(held)]
    log.info("measuring the times of %d layers at batch %d took %.1f s", len(found), batch_size, time.perf_counter() - start)
    return found


def _timed(choices: Choices, form: int, measured: LayerTime, size: int, below: float) -> Choices:
    whole, empty = choices.params == size, choices.params == 0
    times = np.where(whole, measured.dense, np.where(empty, 0.0, measured.predict(form, choices.work)))
    at = np.flatnonzero(whole | empty | (times < below * measured.dense))
    return replace(
        choices, params=choices.params[at], macs=choices.macs[at], work=choices.work[at], loss=choices.loss[at],
        plan=lambda i: choices.plan(int(at[i])), nanoseconds=np.rint(times[at]).astype(np.int64),
    )  # fmt: skip
