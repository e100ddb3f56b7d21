"""Times that can be compared: things are timed in turn, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

BATCHES = (1, 64)


@dataclass(frozen=True)
class Timing:
    """Of repeated runs of one thing, in seconds.

    Attributes:
        median: Of the times.
        spread: Their interquartile range.
        least: The shortest: what the machine takes when nothing else keeps it busy.
    """

    median: float
    spread: float
    least: float


def alternate(
    functions: Sequence[Callable[[], Any]],
    device: torch.device,
    seconds: float = 2.0,
    least: int = 5,
    most: int = 50,
    own: bool = False,
) -> list[Timing]:
    """Time each function once, then each again, and so on: at least ``least`` and at most ``most`` rounds after two that do
    not count, until about ``seconds`` have passed. What slows the machine for a while then slows all of them.

    ``own``: on a CPU with one thread count the time that this thread was given in place of all that passed, so that what waits for a
    processor that others use does not look slow."""
    clock = time.thread_time if own and device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    taken: list[list[float]] = [[] for _ in functions]
    finish = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
    for _ in range(2):
        for function in functions:
            function()
    finish()
    began = clock()
    while len(taken[0]) < least or (len(taken[0]) < most and clock() - began < seconds):
        for function, times in zip(functions, taken):
            start = clock()
            function()
            finish()
            times.append(clock() - start)
    spreads = [float(np.subtract(*np.percentile(times, [75, 25]))) for times in taken]
    return [Timing(float(np.median(times)), spread, min(times)) for times, spread in zip(taken, spreads)]


def repeat_to(inputs: Tensor, count: int) -> Tensor:
    """``count`` examples, the given ones over and over; images in channels_last order, in which thin convolutions run faster."""
    inputs = inputs[torch.arange(count, device=inputs.device) % len(inputs)]
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs


@torch.inference_mode()
def measure_latency(dense: nn.Module, compressed: nn.Module, inputs: Tensor) -> dict[str, float | int | str]:
    """Milliseconds of one forward pass at batch 1 and 64, dense and compressed in alternation: columns of a row."""
    row: dict[str, float | int | str] = {"latency_threads": torch.get_num_threads(), "latency_device": device_name(inputs.device)}
    for size in BATCHES:
        batch = repeat_to(inputs, size)
        timings = alternate([partial(dense, batch), partial(compressed, batch)], inputs.device)
        for name, timing in zip(("latency_dense", "latency"), timings):
            row |= {f"{name}_{size}": 1e3 * timing.median, f"{name}_{size}_iqr": 1e3 * timing.spread}
    return row


LATENCY_COLUMNS = [f"{name}_{size}{end}" for size in BATCHES for name in ("latency_dense", "latency") for end in ("", "_iqr")]
LATENCY_COLUMNS += ["latency_threads", "latency_device"]


def device_name(device: torch.device) -> str:
    """The model of a GPU, or the type of another device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
