"""The accuracy of networks, and of the dense one once for all jobs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from filelock import FileLock
from torch import nn

from lrp.dataset.base import Data
from lrp.evaluation import Metrics, evaluate
from lrp.files import sha256, write_text
from lrp.model.source import own_sources

if TYPE_CHECKING:
    from lrp.job.prune import Job


def _evaluate(model: nn.Module, data: Data, job: Job, progress: str) -> Metrics:
    return evaluate(model, data, getattr(data, job.part), job.batch_size, progress, job.estimator.pick)


def _dense_metrics(model: nn.Module, data: Data, job: Job, cache: Path, device: torch.device) -> Metrics:
    """The dense network on the images that count: the same in every job of a sweep, so it is measured once."""
    estimator, part = job.estimator, getattr(data, job.part)
    parts = [str(model), *own_sources(model), estimator.output_name or "", str(device), str(job.batch_size)]
    key = sha256([*parts, part.images, part.labels, *model.state_dict().values()])
    file = cache / "dense" / f"{key}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        try:
            return Metrics(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            metrics = _evaluate(model, data, job, "dense")
            write_text(file, json.dumps(asdict(metrics)))
            return metrics
