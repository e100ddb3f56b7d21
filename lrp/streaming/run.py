"""The three passes over the blocks of a network: forward, backward, and forward through what is compressed."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from lrp.batches import Batches, counted, examples
from lrp.decomposition.base import decompose
from lrp.deploy.saving import write
from lrp.errors import InputError
from lrp.estimator.shared import PARTS
from lrp.evidence import Evidence
from lrp.group import UNIT
from lrp.heap import give_back
from lrp.inputs import MASK
from lrp.layer.build import find_kind
from lrp.matrices import Block
from lrp.method.forms import sides, with_forms
from lrp.method.plan import Plan, matrix_plans
from lrp.method.singular_vectors import SingularVectorsFitted
from lrp.network.arithmetic import random_signs, read_output
from lrp.partition import cut as cut_into_blocks
from lrp.results.tables import read_if_there
from lrp.standin.replace import put_back
from lrp.streaming.cut import Cut
from lrp.streaming.naming import fits
from lrp.streaming.skeleton import Skeleton
from lrp.streaming.spool import Work, batches
from lrp.streaming.ways import chosen, kept, read_scores, write_ways
from lrp.streaming.writing import begin, block_file, finish

OUTPUTS = 8  # random combinations of the network's outputs


class Run:
    """One pass forward, one backward, one forward through what is compressed. ``read`` says how the network's outputs are read, ``method``
    how the layers of a block are treated."""

    def __init__(
        self, skeleton: Skeleton, given: Batches, size: int, scoring: int, exclude: Sequence[str], read: Any, method: Any, work: Work,
    ) -> None:  # fmt: skip
        self.skeleton, self.given, self.size, self.scoring, self.method = skeleton, given, size, scoring, method
        self.exclude, self.read, self.work, self.count = exclude, read, work, len(skeleton.blocks)
        self.masked = counted(given.example) is not None
        self.group, self.sizes = work.group, [examples(batch) for batch in given.split(size)]
        with self.group.agreed(), skeleton.ends():
            skeleton.look(given, size)

    @property
    def _unit(self) -> int:
        """How many examples statistics look at at once: where processes share them an eighth at most, for there may be few."""
        if not self.group.fixed:
            return UNIT
        return min(UNIT, 1 << (-(-len(self.given) // PARTS)).bit_length() - 1)

    @property
    def _own(self) -> range:
        """The batches that this process runs through each block."""
        return range(self.group.rank, len(self.sizes), self.group.size)

    def _numbers(self, numbers: Iterable[int], title: str) -> Iterator[int]:
        for k in tqdm(numbers, desc=title, unit="block", leave=False, disable=None):
            yield k
            give_back()

    @torch.no_grad()
    def forward(self) -> None:
        """What each block reads, and the gradients with respect to what the last one gives."""
        if not self.work.done("before"):
            with self.group.agreed(), self.skeleton.ends():
                for i, batch in enumerate(self.given.split(self.size)):
                    if i not in self._own:
                        continue
                    x, told = self.skeleton.before(batch)
                    told |= {} if (mask := counted(batch)) is None else {MASK: mask}
                    self.work.spool("x0").write(i, x=x)
                    if told:
                        self.work.spool("told").write(i, **told)
            self.work.finish("before")
        for k in self._numbers(range(self.count), "forward"):
            if not self.work.done(f"forward{k}"):
                with self.group.agreed(), self.skeleton.block(k) as cut:
                    for i in self._own:
                        self.work.spool(f"x{k + 1}").write(i, x=cut.given(self._read(f"x{k}", i), *self._told(k, i)))
                self.work.finish(f"forward{k}")
        if not self.work.done("behind"):
            self._behind()
            self.work.finish("behind")

    def _behind(self) -> None:
        last = f"x{self.count}"
        with self.group.agreed(), self.skeleton.ends():
            for i, batch in enumerate(self.given.split(self.size)):
                if i not in self._own:
                    continue
                with torch.enable_grad():
                    x = self._read(last, i).requires_grad_()
                    y = read_output(self.read.read, self.skeleton.behind(batch, x), batch)
                    if bool(y.isnan().any()) and bool(x.isfinite().all()):
                        wrong = "behind it the outputs are not numbers, or more than its first tensor is read"
                        raise InputError("blocks", self.skeleton.blocks[-1], wrong)
                    found = []
                    for direction in _directions(y.shape[1]).to(y):
                        (grad,) = torch.autograd.grad((y * direction).sum(), x, retain_graph=True)
                        found.append(grad)
                self.work.spool(f"g{self.count}").write(i, g=torch.stack(found, dim=1))

    def _inputs(self, x: str, k: int) -> Batches:
        names = [*self.skeleton.told(k), *([MASK] if self.masked else [])]
        told = {self.work.spool("told"): names} if names else {}
        return batches({self.work.spool(x): ["x"], self.work.spool(f"g{k + 1}"): ["g"], **told}, self.sizes, self._unit)

    def _read(self, name: str, i: int) -> Tensor:
        return self.work.spool(name).read(i, "x")[0]

    def _told(self, k: int, i: int) -> list[Tensor]:
        """What a block reads of the examples of a batch besides what the block before gives."""
        names = self.skeleton.told(k)
        return self.work.spool("told").read(i, *names) if names else []

    def _layers(self, cut: Cut, k: int) -> list[str]:
        """The layers of a block that nobody has excluded."""
        own = [name for name, module in cut.named_modules() if find_kind(module)]
        return [name for name in own if not any(fits(self.skeleton.name(k, name), pattern) for pattern in self.exclude)]

    def _evidence(self, cut: Cut, k: int, layers: Sequence[str]) -> Evidence:
        """Of these layers of a block alone."""
        exclude = [name for name, module in cut.named_modules() if find_kind(module) and name not in layers]
        found = Evidence(cut, self._inputs(f"x{k}", k), scoring_images=self.scoring, group=self.group)
        return found.of(self.method.estimator, exclude, self.method.samples)

    def backward(self) -> None:
        """From the last block to the first: scores of its components, the ways in which its layers can be stored, and the gradients with
        respect to what it reads."""
        for k in self._numbers(range(self.count)[::-1], "backward"):
            if self.work.done(f"backward{k}"):
                continue
            with self.skeleton.block(k) as cut:
                self._score(cut, k)
                with self.group.agreed():
                    for i in self._own if k else ():  # nothing is asked of what comes before the first
                        self.work.spool(f"g{k}").write(i, g=self._gradients(cut, k, i))
            self.work.finish(f"backward{k}")

    def _gradients(self, cut: Cut, k: int, i: int) -> Tensor:
        """With respect to what a block reads of a batch, (B, J, ...)."""
        x, (g,) = self._read(f"x{k}", i).requires_grad_(), self.work.spool(f"g{k + 1}").read(i, "g")
        with torch.enable_grad():
            y = cut(x, g, *self._told(k, i))
            return torch.stack([torch.autograd.grad(y[:, j].sum(), x, retain_graph=True)[0] for j in range(y.shape[1])], dim=1)

    def _score(self, cut: Cut, k: int) -> None:
        layers, blocks, scores, ways = self._layers(cut, k), list[Block](), list[Tensor](), None
        if layers:
            evidence = self._evidence(cut, k, layers)
            if lost := evidence.unreached():
                evidence = evidence.without(dict.fromkeys(lost, "no gradient of the output reaches it, so it cannot be scored"))
            fitted = self.method.score(evidence, targets=False)
            blocks, scores = fitted.blocks, fitted.scores
            ways = with_forms(fitted, self.method.usable_forms) if self.method.chooses_forms else None
        self.group.by_first(lambda: write_ways(self.work, k, blocks, scores, ways))

    @torch.no_grad()
    def compress(self, sparsity: float, folder: Path) -> pd.DataFrame:
        """Compress one block after the other, each from what the compressed ones before it give."""
        select = chosen if self.method.chooses_forms else kept
        found, anything = select(self.work, self.skeleton.blocks, self.method, sparsity)
        self.group.by_first(lambda: begin(folder))
        for k in self._numbers(range(self.count), "compress"):
            if self.work.done(f"compress{k}"):
                continue
            with self.skeleton.block(k) as cut:
                small, rows = self._compressed(cut, k, sparsity, found, anything)
                small.block = put_back(small.block, self.skeleton.module(k))
            with self.group.agreed():
                for i in self._own:
                    x = self._read("x0" if k == 0 else f"c{k}", i)
                    self.work.spool(f"c{k + 1}").write(i, x=small.given(x, *self._told(k, i)))
                if self.group.first:
                    write(small.block, folder / block_file(k))
                    if len(rows):
                        rows.to_csv(self.work.folder / f"rows{k}.csv", index=False)
            self.work.finish(f"compress{k}")
            for name in (f"x{k}", f"c{k}", f"g{k + 1}") if self.group.first else ():
                self.work.spool(name).remove()
        return self.group.by_first(lambda: self._finished(folder))

    def _finished(self, folder: Path) -> pd.DataFrame:
        tables = [read_if_there(self.work.folder / f"rows{k}.csv") for k in range(self.count)]
        report = finish(folder, self.skeleton, [table for table in tables if table is not None])
        self.work.remove()
        return report

    def _compressed(self, cut: Cut, k: int, sparsity: float, found: Mapping[str, Any], anything: bool) -> tuple[Cut, pd.DataFrame]:
        """A block with its layers stored as was ``found``, compensated where ``anything`` goes in any block."""
        blocks, scores = read_scores(self.work, k)
        if not blocks:
            return copy.deepcopy(cut), pd.DataFrame()
        evidence, compensation = self._evidence(cut, k, list(dict.fromkeys(block.layer for block in blocks))), self.method.compensation
        plan = Plan(sparsity, self._layers_of(evidence, k, scores, found), cut, evidence.survey).once()
        self.group.check_same(lambda: [layer.rows() for layer in plan.layers.values()], "plans")
        small: Any = plan.build()
        if anything:  # what comes before a dense layer may have changed
            inputs = self._inputs("x0" if k == 0 else f"c{k}", k).shared(self.group)
            compensation(small, evidence.survey, inputs, evidence.statistics(compensation.needs))
        return small, pd.DataFrame([{"layer": self.skeleton.name(k, name), **layer.summary()} for name, layer in plan.layers.items()])

    def _layers_of(self, evidence: Evidence, k: int, scores: Sequence[Tensor], found: Mapping[str, Any]) -> Mapping[str, Any]:
        """What becomes of the layers of a block, found again from the scores of their components."""
        factors = decompose(
            evidence.matrices, cut_into_blocks(self.method.blocking, evidence.matrices), self.method.decomposition, group=self.group
        )
        if not self.method.chooses_forms:
            return matrix_plans(evidence.survey, factors, [found[f"{k} {factor.block.layer} {factor.block.index}"] for factor in factors])
        fitted = SingularVectorsFitted(self.method, evidence, factors=factors, scores=[*scores])
        ways = with_forms(fitted, self.method.usable_forms, lambda: sides(factors, scores))
        return {name: ways.layer(name, found[f"{k} {name}"]) for name in ways.choices}


def _directions(outputs: int) -> Tensor:
    """The combinations of so many outputs that are differentiated, the same for all examples: (J, K)."""
    if outputs <= OUTPUTS:
        return torch.eye(outputs)
    return random_signs((OUTPUTS, outputs), torch.Generator().manual_seed(0)) / OUTPUTS**0.5
