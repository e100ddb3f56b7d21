"""Gradients of random combinations of a network's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lrp.errors import InputError
from lrp.network.arithmetic import random_signs

FEW_IMAGES = 512  # of fewer, several combinations of the outputs of each are differentiated
COMBINATIONS = 16  # at most


def combinations(images: int) -> int:
    """How many combinations of the outputs of each of so many images are differentiated: of one, gradients of few images span little."""
    return max(1, min(COMBINATIONS, FEW_IMAGES // images))


def passes_of(y: Tensor, times: int) -> int:
    """How many combinations of the outputs y (B, K) of each image are differentiated, where so many are wanted."""
    return min(times, y.shape[1])


def skip(y: Tensor, images: int, generator: torch.Generator, padded: bool, times: int) -> None:
    """Draw, and drop, what ``differentiate`` draws for a batch of so many ``images`` of which another process has the outputs; this one
    has ``y`` of others."""
    if y.shape[1] > times:
        for _ in range(passes_of(y, times)):
            random_signs((images, y.shape[1]), generator, padded)


def differentiate(y: Tensor, calls: Sequence[tuple[Any, Tensor]], generator: torch.Generator, padded: bool, times: int) -> None:
    """Show each layer of ``calls``, with its outputs, the gradients of ``times`` random combinations of the outputs y (B, K) of each image,
    or of each output where these are no more.

    Raises:
        InputError: For an output that carries no gradient.
    """
    if calls and not y.requires_grad:
        raise InputError(
            "the network's output carries no gradient, so decomposition=two_sided and compensation.metric=gradient cannot "
            "be used; decomposition=activation and compensation.metric=plain can"
        )
    passes = passes_of(y, times)
    for at in range(passes):
        if y.shape[1] <= times:
            weights = torch.eye(passes)[at].to(y)
        else:
            weights = random_signs((len(y), y.shape[1]), generator, padded).to(y) / times**0.5
        grads = torch.autograd.grad((y * weights).sum(), [z for _, z in calls], allow_unused=True, retain_graph=at < passes - 1)
        for (layer, z), grad in zip(calls, grads, strict=True):
            layer.add_gradients(z, grad, passes)
