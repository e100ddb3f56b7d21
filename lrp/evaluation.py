"""Accuracy, parameters and MACs of a network."""

from __future__ import annotations

import copy
from dataclasses import dataclass

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
def evaluate(model: nn.Module, data: Data, part: Part, batch_size: int, progress: str | None = None) -> Metrics:
    """Accuracy and loss of a network in eval mode on one part, in fp32; ``progress`` labels a bar."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    correct, loss = 0, 0.0
    bar = tqdm(total=len(part), desc=progress, leave=False, disable=None if progress else True, unit="image")
    for images, labels in batches(part, batch_size):
        logits = model(data.network_input(images, device))
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
    """Multiply-accumulates of the convolutions and linear layers as they run on ``example`` (1, ...), one image.

    Counted by torch's FlopCounterMode, on tensors without data.
    """
    model = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty_like(example, device="meta"))
    return counter.get_total_flops() // 2
