"""Processes that share one job: the first does all of it, the others what they look at together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lrp.batches import Batches
from lrp.dataset.base import Data, Part
from lrp.errors import own_code
from lrp.evidence import Evidence
from lrp.files import sha256
from lrp.group import UNIT, Group
from lrp.heap import given_back
from lrp.job.calibration import calibration_parts
from lrp.job.device import find_device, use_threads
from lrp.method.base import FittedMethod
from lrp.network.arithmetic import in_one_sentence
from lrp.standin.replace import with_stand_ins


def check_together(group: Group, model: nn.Module, batches: Batches) -> None:
    """That all processes of a group have the same network and the same examples.

    Raises:
        InputError: Where they differ.
    """
    group.check_same(lambda: sha256(part for pair in sorted(model.state_dict().items()) for part in pair), "weights")
    group.check_same(lambda: [len(batches), *batches.hashes(UNIT)], "examples")


def fit(job: Any, data: Data, model: nn.Module, device: torch.device, cache: Path, group: Group) -> tuple[FittedMethod, Part]:
    """Let the method of a ``Job`` look at the network on its calibration examples, in all processes of a group; and the examples that
    scores look at.

    Raises:
        InputError: For input that cannot be used, and where the processes have not been given the same.
    """
    calibration, scoring = calibration_parts(data, job.calibration)
    inputs = Batches.of(data.network_input(calibration.images, device))
    inputs.labels = calibration.labels
    check_together(group, model, inputs)
    with given_back(), in_one_sentence(model), own_code(f"method={job.method.name}", job.method):
        evidence = Evidence(with_stand_ins(model, inputs.example), inputs, cache, len(scoring), group=group)
        return job.search(job.method, job.estimator).fit(evidence), scoring


def follow(job: Any, group: Group) -> None:
    """The part that a process other than the first has in a job. It writes nothing but what it may find in the cache.

    Raises:
        InputError: For input that cannot be used.
    """
    with group.agreed():  # the first opens its folder
        pass
    todo: Sequence[float] = group.from_first([])
    if not todo:
        return
    use_threads(job.threads)
    device, cache = find_device(job.device), Path(job.cache_dir).expanduser()
    data = job.dataset.load()
    group.all(None)  # the first has trained the network, or has found it
    model, _ = job.model.obtain(data, job.seed, cache, device, job.estimator)
    fitted, _ = fit(job, data, model, device, cache, group)
    fitted.predict(job.sparsities)  # which may look at the network
    for sparsity in todo:
        if group.from_first(True):  # the row is there by now
            continue
        with given_back(), in_one_sentence(model):
            fitted.compress(fitted.plan_of(sparsity, job.budget_of))
