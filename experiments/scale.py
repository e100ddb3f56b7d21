"""Memory and seconds of lrp.compress on networks of the size that people use, stage by stage.

    python experiments/scale.py --out experiments/results/scale.csv                               # all of it: hours on one core
    python experiments/scale.py --networks resnet50 --size 64 --examples 16 64 --out scale.csv    # a part of it, smaller
    python experiments/scale.py --networks chain --size 100 200 400 800 --out scale.csv           # how it grows

Random weights, half of the parameters removed, default options, one thread. Each measurement is a process of its own (Linux). Memory is
what the process had at its peak over what it had just before the call, when it held the network and the examples; a tiny network is
compressed first, so that what is imported late does not count. ``peak_gib`` is of memory of the process's own (RssAnon, looked at every
10 ms), which does not change when the system takes pages of libraries back from a process; ``hwm_gib`` is VmHWM over VmRSS, as it is. A
stage's peak is that of the stage alone. Seconds are of the processor, so that other programs change them little; a stage's are without
those of a stage within it. A row that is there already is not measured again.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from kept_rows import KeptRows
from memory import chain, of_process
from own_process import measured
from torch import nn

import lrp
import lrp.evidence
import lrp.method.base
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.method import forms, singular_vectors
from lrp.method.plan import Plan

STAGES = ("survey", "decompose", "score", "inputs", "build", "statistics", "compensate")
GIB = 2**30


def resnet50(size: int) -> tuple[nn.Module, Callable[[int], Any]]:
    """As torchvision has it; ``size``: pixels a side."""
    from torchvision.models import resnet50

    return resnet50(weights=None).eval(), lambda count: torch.randn(count, 3, size, size)


def vit_b_16(size: int) -> tuple[nn.Module, Callable[[int], Any]]:
    """As torchvision has it; ``size``: pixels a side, a multiple of 16."""
    from torchvision.models import vit_b_16

    model: Any = vit_b_16(weights=None, image_size=size).eval()
    nn.init.normal_(model.heads.head.weight, std=0.02)  # torchvision's zeros let no gradient through
    return model, lambda count: torch.randn(count, 3, size, size)


def gpt2(size: int) -> tuple[nn.Module, Callable[[int], Any]]:
    """GPT-2 small of transformers; ``size``: tokens an example."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(use_cache=False)).eval(), lambda count: {"input_ids": torch.randint(0, 50257, (count, size))}


def chain_of(width: int = 200, length: int = 8, outputs: int = 10) -> tuple[nn.Module, Callable[[int], Any]]:
    """Linear layers with ReLU between them, the first of 512 inputs."""
    return chain(width, 512, length, outputs), lambda count: torch.randn(count, 512)


NETWORKS: dict[str, tuple[Callable[[int], tuple[nn.Module, Callable[[int], Any]]], int]] = {  # and the usual size
    "chain": (lambda size: chain_of(width=size), 200),
    "chain_layers": (lambda size: chain_of(length=size), 8),
    "chain_outputs": (lambda size: chain_of(outputs=size), 10),
    "resnet50": (resnet50, 224), "vit_b_16": (vit_b_16, 224), "gpt2": (gpt2, 64),
}  # fmt: skip


class Stages:
    """Seconds and peaks of the stages of a run, of which one is within another at times: an inner one's seconds are not the outer one's."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self.before = of_process("RssAnon")
        self.peak: dict[str, int] = dict.fromkeys((*STAGES, "all"), self.before)
        self._open: list[str] = []
        self._since, self._over = time.process_time(), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.01):
            now = of_process("RssAnon")
            for stage in ("all", *self._open[-1:]):
                self.peak[stage] = max(self.peak[stage], now)

    def stop(self) -> dict[str, float]:
        """The seconds of each stage, and the peaks in GiB over what there was at the beginning."""
        self._over.set()
        self._thread.join()
        peaks = {f"peak_{stage}_gib": (peak - self.before) / GIB for stage, peak in self.peak.items()}
        return {**{f"seconds_{stage}": seconds for stage, seconds in self.seconds.items()}, **peaks}

    def watch(self, stage: str, owner: Any, name: str) -> None:
        """Count what ``owner.name`` takes for a stage."""
        inner = getattr(owner, name)

        def outer(*args: Any, **kwargs: Any) -> Any:
            with self.running(stage):
                return inner(*args, **kwargs)

        setattr(owner, name, outer)

    @contextlib.contextmanager
    def running(self, stage: str) -> Iterator[None]:
        """While a stage runs."""
        self._switch()
        self._open.append(stage)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def _switch(self) -> None:
        now = time.process_time()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


def watched() -> Stages:
    """The stages of lrp.compress."""
    stages = Stages()
    stages.watch("survey", lrp.evidence, "find_candidates")
    stages.watch("decompose", singular_vectors, "decompose")
    stages.watch("score", FirstOrderEstimator, "__call__")
    stages.watch("inputs", forms, "input_perturbations")
    stages.watch("build", Plan, "build")
    stages.watch("statistics", lrp.evidence, "gather")
    stages.watch("compensate", lrp.method.base, "compensate")
    return stages


def one(network: str, size: int, examples: int) -> dict[str, Any]:
    """One row."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lrp.compress(nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 12)), torch.randn(64, 12), 0.5)
    model, make = NETWORKS[network][0](size)
    inputs = make(examples)
    stages = watched()
    ran = {"forwards": 0, "backwards": 0}
    grad = torch.autograd.grad

    def counted(*args: Any, **kwargs: Any) -> Any:
        ran["backwards"] += stages._open[-1:] == ["score"]
        return grad(*args, **kwargs)

    torch.autograd.grad = counted
    batch = FirstOrderEstimator._batch

    def forward(*args: Any, **kwargs: Any) -> Any:
        ran["forwards"] += 1
        return batch(*args, **kwargs)

    FirstOrderEstimator._batch = forward  # type: ignore[method-assign]
    before, start = of_process("VmRSS"), time.process_time()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    lrp.compress(model, inputs, 0.5, images=examples)
    seconds, most = time.process_time() - start, of_process("VmHWM") - before
    found = stages.stop()
    parameters = sum(value.numel() for value in model.parameters())
    return {
        "network": network, "size": size, "examples": examples, "parameters": parameters, "weights_gib": 4 * parameters / GIB,
        "peak_gib": found.pop("peak_all_gib"), "hwm_gib": most / GIB, "seconds": seconds, **ran, **found,
    }  # fmt: skip


def main() -> None:
    """Measure what is not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    parser.add_argument(
        "--size", type=int, nargs="+", help="features, layers or outputs of a chain (200, 8, 10), pixels a side (224) or tokens (64)"
    )
    parser.add_argument("--examples", type=int, nargs="+", default=[64, 1024])
    parser.add_argument("--out", type=Path, help="a CSV file to which rows are added")
    parser.add_argument("--one", action="store_true", help="measure in this process and print the row")
    args = parser.parse_args()
    if not args.one and args.out is None:
        parser.error("give --out, the file that rows are added to, or --one")
    rows = None if args.one else KeptRows(args.out)
    for network, examples in itertools.product(args.networks, args.examples):
        for size in args.size or [NETWORKS[network][1]]:
            if rows is None:
                print(json.dumps(one(network, size, examples)))
                continue
            if rows.has(network=network, size=size, examples=examples):
                continue
            found = measured(__file__, "--one", "--networks", network, "--size", size, "--examples", examples)
            print(f"{network}, {size}, {examples} examples: {found['peak_gib']:.2f} GiB, {found['seconds']:.0f} s", flush=True)
            rows.add([found])


if __name__ == "__main__":
    main()
