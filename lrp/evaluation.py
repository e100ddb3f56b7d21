"""Accuracy, parameters and MACs of a network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from lrp.data import Data, Part, batches
from lrp.errors import InputError


@dataclass(frozen=True)
class Metrics:
    """Top-1 accuracy in [0, 1] and mean cross entropy (nats)."""

    accuracy: float
    loss: float


@torch.no_grad()
def evaluate(
    model: nn.Module, data: Data, part: Part, batch_size: int, progress: str | None = None, pick: Callable[[Any], Tensor] | None = None
) -> Metrics:
    """Accuracy and loss of a network in eval mode on one part, in fp32; ``progress`` labels a bar, ``pick`` gets the logits out
    of what the network returns, where that is not a tensor."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    correct, loss = 0, 0.0
    bar = tqdm(total=len(part), desc=progress, leave=False, disable=None if progress else True, unit="image")
    for images, labels in batches(part, batch_size):
        logits = model(data.network_input(images, device))
        logits = logits if pick is None else pick(logits)
        labels = labels.to(device)
        if logits.shape[1] < data.num_classes:
            raise InputError(f"the network has {logits.shape[1]} outputs, but {data.name} has {data.num_classes} classes")
        correct += int((logits.argmax(1) == labels).sum())
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        bar.update(len(images))
    bar.close()
    model.train(training)
    return Metrics(correct / len(part), loss / len(part))


def count_params(model: nn.Module) -> int:
    """All parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of the convolutions, linear layers and matrix products as they run on ``example`` (1, ...).

    Counted by torch's FlopCounterMode, on tensors without data where the network runs on those. Gradients are on: without them
    torch's transformer encoders run as one operation that is not counted.
    """
    try:
        return _count(model, example, "meta")
    except Exception:  # a network may read values, which such tensors lack
        return _count(model, example, example.device)


def _count(model: nn.Module, example: Tensor, device: torch.device | str) -> int:
    model = copy.deepcopy(model).to(device).eval().requires_grad_()
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty_like(example, device=device) if device == "meta" else example)
    return counter.get_total_flops() // 2
