"""The accuracy of the dense network, measured once for all jobs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lrp.dataset.base import Data
from lrp.entries import read_values, write_values
from lrp.evaluation import Metrics, evaluate
from lrp.files import remove_leftovers, sha256
from lrp.identity import computes
from lrp.locks import locked
from lrp.training import computed_by


def dense_metrics(model: nn.Module, data: Data, part: str, batch_size: int, estimator: Any, cache: Path, device: torch.device) -> Metrics:
    """The dense network on the images that count, ``part`` of the data: the same in every job of a sweep, so it is measured once."""
    images = getattr(data, part)
    parts = [str(model), *computes(model.modules()), estimator.output_name or "", str(device), computed_by(device), str(batch_size)]
    key = sha256([*parts, images.images, images.labels, *model.state_dict().values()])
    file = cache / "dense" / f"{key}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.with_suffix(".lock")):
        remove_leftovers(file.parent, key)
        values = read_values(file, key)
        if values is not None:
            return Metrics(**values)
        metrics = evaluate(model, data, images, batch_size, "dense", estimator.pick)
        write_values(file, asdict(metrics), key)
        return metrics
