"""How long recurrent networks of low rank take, against dense ones, and how much they multiply: one row per network and batch.

    python experiments/recurrent.py

Every matrix (4 H x H of an LSTM, 3 H x H of a GRU, H x H of an RNN) holds half of its parameters. Minima of alternations, one thread,
eager, over those of the dense network: as it runs, and with every step in Python. MACs are of one call, over those of the dense network.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lrp.cost.count import count_macs
from lrp.layer.hold_rank import hold_rank
from lrp.standin import recurrent
from lrp.standin.replace import with_stand_ins

SIZES = ((64, 32), (96, 12), (256, 50))  # features, steps
KINDS = (nn.LSTM, nn.GRU, nn.RNN)


def minima(ways: list[Callable[[], Any]], seconds: float = 3.0) -> list[float]:
    """Of each of these the least time of a call, in seconds, called in turn."""
    least, end = [float("inf")] * len(ways), time.perf_counter() + seconds
    while time.perf_counter() < end:
        for i, way in enumerate(ways):
            start = time.perf_counter()
            way()
            least[i] = min(least[i], time.perf_counter() - start)
    return least


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kernel = recurrent.STEP
    print(f"{'':8}{'H':>5}{'steps':>6}{'batch':>6}{'time':>7}{'in steps':>9}{'MACs':>7}{'in steps':>9}")
    for kind in KINDS:
        for features, steps in SIZES:
            dense: Any = kind(features, features, batch_first=True).eval()
            low = with_stand_ins(dense)
            gates = dense.weight_ih_l0.shape[0]
            rank = gates * features // (2 * (gates + features))
            low = hold_rank(low, {"l0.input": rank, "l0.state": rank})
            for batch in (1, 32):
                x = torch.randn(batch, steps, features)

                def run(network: nn.Module, most: int, x: torch.Tensor = x) -> Any:
                    recurrent.STEP = most
                    return network(x)

                ways = [(dense, kernel), (low, kernel), (low, 0)]
                with torch.no_grad():
                    times = minima([lambda way=way: run(*way) for way in ways])
                macs = []
                for network, recurrent.STEP in ways:
                    macs.append(count_macs(network, x))
                print(
                    f"{kind.__name__:8}{features:5}{steps:6}{batch:6}{times[1] / times[0]:7.2f}{times[2] / times[0]:9.2f}"
                    f"{macs[1] / macs[0]:7.2f}{macs[2] / macs[0]:9.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
