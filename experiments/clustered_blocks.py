"""Groups of input channels that belong together (blocking=clustered) against no blocks and contiguous groups (alds), layer by layer.

    python experiments/clustered_blocks.py --model resnet20 --checkpoint $RESNET --data $DATA --k 4 --sparsities 0.8 0.9 --starts 3 \
        --out experiments/results/clustered_blocks.csv
    python experiments/clustered_blocks.py summary --table experiments/results/clustered_blocks.csv \
        --out experiments/results/clustered_blocks_summary.csv

The error of a layer is E ||G^1/2 (W - W') x||^2 over its dense value, in the metric of a decomposition, on calibration images: svd (the
weights alone), activation, two_sided. Everything holds the same number of parameters, (1 - sparsity) M N: since ranks are whole, errors are
interpolated between the two numbers of components around it, which in blocks are those of the largest singular values. ``refit``: U of
all blocks fitted anew to the layer's outputs, as compensation=least_squares does. ``counted``: the order of the channels counts as so many
parameters. ``shuffled``: groups drawn at random.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from lrp.blocking.clustered import ClusteredBlocking
from lrp.config.build import compose_job
from lrp.config.parts import make
from lrp.decomposition.base import decompose, metrics_of
from lrp.evidence import Evidence
from lrp.files import write_whole
from lrp.matrices import Block, Factors, LayerMatrix
from lrp.order import Order
from lrp.partition import cut

BETTER = 1e-6  # of the error: less is rounding
RIDGE = 1e-10  # of the mean diagonal, in refits


class Judge:
    """The errors of one layer in one metric."""

    def __init__(self, matrix: LayerMatrix, C: Tensor | None, root: Tensor | None) -> None:
        self.W = matrix.weight.double()
        self.C = C
        self.root = root
        self.dense = self.of(self.W)

    def of(self, D: Tensor) -> float:
        """E ||G^1/2 D x||^2."""
        D = D if self.root is None else self.root @ D
        return float((D * self._weighed(D)).sum())

    def _weighed(self, D: Tensor) -> Tensor:
        return D if self.C is None else D @ self.C

    def errors(self, factors: Sequence[Factors], budget: float) -> tuple[float, float]:
        """At so many parameters, as a share of the dense layer's: as the blocks are decomposed, and refitted."""
        components = sorted(((float(s), b, i) for b, f in enumerate(factors) for i, s in enumerate(f.S)), reverse=True)
        kept, spent, before = [0] * len(factors), 0.0, self._errors(factors, [0] * len(factors))
        for _, b, _ in components:
            cost = sum(factors[b].block.shape)
            if spent + cost > budget:
                more = list(kept)
                more[b] += 1
                before, after = self._errors(factors, kept), self._errors(factors, more)
                share = (budget - spent) / cost
                return tuple((one + share * (two - one)) / self.dense for one, two in zip(before, after))  # type: ignore[return-value]
            kept[b], spent = kept[b] + 1, spent + cost
        return tuple(error / self.dense for error in self._errors(factors, kept))  # type: ignore[return-value]

    def _errors(self, factors: Sequence[Factors], kept: Sequence[int]) -> tuple[float, float]:
        """As decomposed and refitted; factors whose component i is the i-th by size."""
        D, T = self.W.clone(), []
        for f, rank in zip(factors, kept):
            rows = torch.zeros(rank, self.W.shape[1], dtype=torch.float64)
            rows[:, f.block.columns] = f.V[:rank]
            D -= f.U[:, :rank] @ rows
            T.append(rows)
        V = torch.cat(T)
        if not len(V):
            return self.dense, self.dense
        inner = self._weighed(V) @ V.T
        inner.diagonal().add_(RIDGE * inner.diagonal().mean())
        U = torch.linalg.solve(inner, self._weighed(V) @ self.W.T).T
        return self.of(D), self.of(self.W - U @ V)


def blocks_of(matrix: LayerMatrix, contiguous: Sequence[Block], order: Order) -> list[Block]:
    return [replace(block, order=order) for block in contiguous]


def layer_rows(matrix: LayerMatrix, decomposition: Any, statistics: Any, k: int, sparsities: Sequence[float], starts: int) -> list[dict]:
    """One row per sparsity for a layer."""
    name, known = matrix.name, {} if statistics is None else statistics
    found = metrics_of(decomposition, {name: matrix}, known).get(name, (None, None))
    judge, held = Judge(matrix, *found), {name: matrix}

    def factors(blocks: Sequence[Block]) -> list[Factors]:
        return decompose(held, blocks, decomposition, known or None)

    whole, contiguous = cut(make("blocking", "none"), held), cut(make("blocking", "alds", k=k), held)
    drawn = torch.randperm(matrix.channels, generator=torch.Generator().manual_seed(1)).tolist()
    same = {
        "none": factors(whole), "contiguous": factors(contiguous),
        "shuffled": factors(blocks_of(matrix, contiguous, Order(tuple(drawn), matrix.kernel))),
    }  # fmt: skip
    rows = []
    for sparsity in sparsities:
        budget, start = (1 - sparsity) * matrix.weight.numel(), time.perf_counter()
        blocking = ClusteredBlocking(k, at_sparsity=sparsity, starts=starts)
        clustered = factors(blocking.in_metric(held, {name: found}))
        seconds = time.perf_counter() - start
        row = {"layer": name, "M": matrix.shape[0], "N": matrix.shape[1], "channels": matrix.channels, "k": k,
               "decomposition": decomposition.name, "sparsity": sparsity}  # fmt: skip
        for way, own in {**same, "clustered": clustered}.items():
            row[way], row[f"{way}_refit"] = judge.errors(own, budget)
        moved = clustered[0].block.order is not None
        row["clustered_counted"], row["clustered_counted_refit"] = judge.errors(clustered, budget - matrix.channels * moved)
        rows.append({**row, "moved": moved, "seconds": seconds})
    return rows


def run(args: argparse.Namespace) -> None:
    """Write the table, layer by layer."""
    torch.set_num_threads(args.threads)
    data = make("dataset", "cifar10", path=args.data).load()
    source = replace(compose_job(f"model={args.model}", "dataset=cifar10").model, checkpoint=str(args.checkpoint))
    model, _ = source.obtain(data, 0, args.cache_dir, torch.device("cpu"))
    images = data.normalise(data.calibration(args.images, 0).images)
    evidence = Evidence(model.eval(), images).of(make("estimator", "first_order"), (), args.samples)
    decompositions = [make("decomposition", name) for name in args.decompositions]
    needs = sorted({need for each in decompositions for need in each.needs})
    statistics = evidence.statistics(needs) if needs else None
    rows: list[dict] = []
    for name, matrix in evidence.matrices.items():
        for decomposition in decompositions:
            for k in args.k:
                if matrix.channels > k and matrix.reorders:
                    more = layer_rows(matrix, decomposition, statistics, k, args.sparsities, args.starts)
                    rows += [{"model": args.model, **row} for row in more]
        print(f"{name}: {len(rows)} rows", flush=True)
        write_whole(args.out, partial(pd.DataFrame(rows).to_csv, index=False, float_format="%.6g"))


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Per network, decomposition, sparsity and k: the share of the layers in which clustered groups beat both others."""
    rows = []
    for keys, part in table.groupby(["model", "decomposition", "sparsity", "k"], sort=False):
        row = {**dict(zip(["model", "decomposition", "sparsity", "k"], keys)), "layers": len(part)}
        for suffix in ("", "_refit"):
            none, contiguous, clustered = (part[f"{way}{suffix}"] for way in ("none", "contiguous", "clustered"))
            counted = part[f"clustered_counted{suffix}"]
            row[f"contiguous_beats_none{suffix}"] = (contiguous < none * (1 - BETTER)).mean()
            row[f"beats_contiguous{suffix}"] = (clustered < contiguous * (1 - BETTER)).mean()
            row[f"beats_both{suffix}"] = ((clustered < none * (1 - BETTER)) & (clustered < contiguous * (1 - BETTER))).mean()
            row[f"beats_both_counted{suffix}"] = ((counted < none * (1 - BETTER)) & (counted < contiguous * (1 - BETTER))).mean()
            row[f"to_contiguous{suffix}"] = (clustered / contiguous).median()
            row[f"to_none{suffix}"] = (clustered / none).median()
            row[f"contiguous_to_none{suffix}"] = (contiguous / none).median()
            row[f"shuffled_to_contiguous{suffix}"] = (part[f"shuffled{suffix}"] / contiguous).median()
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["run", "summary"], default="run")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--data", help="CIFAR-10, as dataset.path takes it")
    parser.add_argument("--decompositions", nargs="+", default=["svd", "activation", "two_sided"])
    parser.add_argument("--k", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--sparsities", nargs="+", type=float, default=[0.5, 0.8, 0.9])
    parser.add_argument("--starts", type=int, default=4)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--samples", type=int, default=16384)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache-dir", type=Path, default=Path("outputs/cache"))
    parser.add_argument("--table", type=Path, nargs="+", help="what run wrote (summary)")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.what == "run":
        run(args)
        return
    table = summarise(pd.concat([pd.read_csv(file) for file in args.table]))
    write_whole(args.out, lambda path: table.to_csv(path, index=False, float_format="%.4g"))
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
