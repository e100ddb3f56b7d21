"""The accuracy of the dense network, measured once for all jobs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from lrp.dataset.base import Data
from lrp.evaluation import Metrics, evaluate
from lrp.files import sha256, write_text
from lrp.model.source import own_sources


def dense_metrics(model: nn.Module, data: Data, part: str, batch_size: int, estimator: Any, cache: Path, device: torch.device) -> Metrics:
    """The dense network on the images that count, ``part`` of the data: the same in every job of a sweep, so it is measured once."""
    images = getattr(data, part)
    parts = [str(model), *own_sources(model), estimator.output_name or "", str(device), str(batch_size)]
    key = sha256([*parts, images.images, images.labels, *model.state_dict().values()])
    file = cache / "dense" / f"{key}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        try:
            return Metrics(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            metrics = evaluate(model, data, images, batch_size, "dense", estimator.pick)
            write_text(file, json.dumps(asdict(metrics)))
            return metrics
