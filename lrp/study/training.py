"""How studies train: plainly (pixels / 255, no augmentation, an order of the images that follows from seed and epoch), or as lrp does."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from lrp.dataset.base import Data, Part
from lrp.errors import InputError
from lrp.files import sha256
from lrp.training import Sgd, epoch_seed


def pixels(images: Tensor, device: torch.device) -> Tensor:
    """uint8 images as float32 in [0, 1] on the device, in channels_last order, in which small convolutions run faster on CPUs."""
    images = images.to(device).to(torch.float32).div_(255)
    return images.contiguous(memory_format=torch.channels_last)


def some(part: Part, images: int | None, option: str) -> Part:
    """``images`` of a part, the same in every job; all of them if None.

    Raises:
        InputError: For more images than there are.
    """
    if images is None or images == len(part):
        return part
    if images > len(part):
        raise InputError(f"{option}={images}: there are only {len(part)} training images")
    return part.take(torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[:images])


def train_epoch(
    model: nn.Module, part: Part, optimizer: torch.optim.Optimizer, batch_size: int, seed: int, epoch: int, progress: str
) -> float:
    """One pass over ``part`` in the order that ``seed`` and ``epoch`` determine, cross entropy; the mean loss.

    Raises:
        InputError: For a loss that is not finite.
    """
    device = next(model.parameters()).device
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(epoch_seed(seed, epoch)))
    model.train()
    total = 0.0
    for which in tqdm(order.split(batch_size), desc=progress, leave=False, disable=None):
        loss = F.cross_entropy(model(pixels(part.images[which], device)), part.labels[which].to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(which)
    if not total < float("inf"):
        raise InputError(f"study.lr={optimizer.param_groups[0]['lr']}: the training diverged; choose a smaller one")
    return total / len(order)


@torch.inference_mode()
def accuracy(model: nn.Module, part: Part, batch_size: int = 250) -> float:
    """Top-1 accuracy in [0, 1], in eval mode."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    right = 0
    for images, labels in zip(part.images.split(batch_size), part.labels.split(batch_size)):
        right += int((model(pixels(images, device)).argmax(1) == labels.to(device)).sum())
    model.train(training)
    return right / len(part)


class StudySgd(Sgd):
    """lrp's own training (``Sgd``), with the options of a study: normalised images, cropped and flipped as the data set says, one-cycle
    learning rate, momentum as it is."""

    option: ClassVar[str] = "study"
    fewest: ClassVar[int] = 1
    swing: ClassVar[float] = 0.0

    def __call__(self, model: nn.Module, data: Data, part: Part, seed: int, unfinished: Path) -> float:
        """Train ``model`` in place on ``part`` and leave it in eval mode; the mean loss of the last epoch. A killed training goes on from
        the file ``unfinished``, which is removed at the end.

        Raises:
            InputError: For a loss that is not finite.
        """
        state = [each for pair in model.state_dict().items() for each in pair]
        identity = sha256([self.identity, str(seed), str(model), data.fingerprint(), part.index, *state])
        model.to(memory_format=torch.channels_last)
        history = self.fit(model, data, part, seed, unfinished, None, identity=identity, memory_format=torch.channels_last)
        model.eval()
        unfinished.unlink(missing_ok=True)
        return history[-1]["loss"]
