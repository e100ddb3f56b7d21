"""Accuracy of a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from lrp.dataset.base import Data, Part, batches
from lrp.errors import InputError


@dataclass(frozen=True)
class Metrics:
    """What was measured on one part of a data set.

    Attributes:
        accuracy: Top-1, in [0, 1]; where every place of an example has a label (text), over all places.
        loss: Mean cross entropy, in nats.
    """

    accuracy: float
    loss: float


def check_logits(logits: Any, images: int, data: Data) -> None:
    """Nothing, where what a network gives can be compared with labels.

    Args:
        logits: What it gives.
        images: For how many images.
        data: The data set that they are of.

    Raises:
        InputError: For anything but a row of numbers for each image, and for fewer of them than the data set has classes.
    """
    shape = ", ".join(["images", *map(str, data.train.labels.shape[1:]), "outputs"])
    wanted = f"{data.name} needs logits ({shape}), of at least {data.num_classes} outputs, one for each class"
    if not isinstance(logits, Tensor):
        raise InputError(f"the network gives a {type(logits).__name__}, but {wanted}")
    places = data.train.labels.shape[1:]  # of which each has a label
    if logits.dim() != 2 + len(places) or logits.shape[:-1] != (images, *places) or not logits.is_floating_point():
        kind = str(logits.dtype).removeprefix("torch.")
        raise InputError(f"the network gives {kind} of shape {tuple(logits.shape)} for {images} images, but {wanted}")
    if logits.shape[-1] < data.num_classes:
        raise InputError(f"the network has {logits.shape[-1]} outputs, but {data.name} has {data.num_classes} classes")


@torch.no_grad()
def evaluate(
    model: nn.Module, data: Data, part: Part, batch_size: int, progress: str | None = None, pick: Callable[[Any], Tensor] | None = None
) -> Metrics:
    """Accuracy and loss of a network in eval mode on one part, in float32.

    Args:
        model: The network; it keeps its mode.
        data: The data set, which says how images are normalised.
        part: The images and labels to look at.
        batch_size: Images at a time.
        progress: The label of a progress bar; None: no bar.
        pick: Gets the logits (B, K), of text (B, T, K), out of what the network returns, where that is not a tensor.

    Raises:
        InputError: For a network with fewer outputs than the data set has classes, and for outputs that are not logits (B, K).
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    correct, loss = 0, 0.0
    bar = tqdm(total=len(part), desc=progress, leave=False, disable=None if progress else True, unit="image")
    for images, labels in batches(part, batch_size):
        logits = model(data.network_input(images, device))
        logits = logits if pick is None else pick(logits)
        check_logits(logits, len(images), data)
        labels = labels.to(device)
        correct += int((logits.argmax(-1) == labels).sum())
        loss += float(F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum"))
        bar.update(len(images))
    bar.close()
    model.train(training)
    return Metrics(correct / part.labels.numel(), loss / part.labels.numel())
