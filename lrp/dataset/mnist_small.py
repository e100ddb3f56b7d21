"""The MNIST digits that come with lrp."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lrp.dataset.base import SPLIT_SEED, Dataset, Part, _part
from lrp.dataset.mnist import Mnist

STORED = Path(__file__).with_suffix(".npz")


@dataclass(frozen=True)
class MnistSmall(Dataset):
    """5,000 MNIST digits that come with lrp (``mnist_small.txt``: their source and licence); a fixed fifth is the test set. Nothing is
    downloaded."""

    name = "mnist_small"
    mean, std, shape = Mnist.mean, Mnist.std, Mnist.shape

    crop: int = 2

    def _stored(self) -> tuple[Part, Part]:
        with np.load(STORED, allow_pickle=False) as stored:
            whole = _part(torch.from_numpy(stored["pixels"]).view(-1, *self.shape), torch.from_numpy(stored["labels"]).long())
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(SPLIT_SEED))  # stored sorted by label
        return whole.take(order[1000:].sort().values), whole.take(order[:1000])
