"""What compressing a network block by block takes, on paper, and how the paper compares with what was measured.

python experiments/plan.py [--out experiments/results/plan.csv]

Operations of each step of ``lrp.compress_blocks`` by the usual counts (Golub and Van Loan, Matrix Computations, 4th edition), bytes in
memory and on the disk. Networks: the stacks of experiments/depth.py, whose seconds are in depth.csv, and Llama-2-7B (Touvron et al.,
2023), with 128 examples of 2,048 tokens.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from depth import EXAMPLES, TOKENS

RESULTS = Path(__file__).parent / "results"
OUTPUTS = 8  # combinations of outputs that are differentiated
MATRICES = 12  # of the widest layer, in double precision: what the fit of one layer holds (docs/results/scale.md)


@dataclass(frozen=True)
class Stack:
    """A network of equal blocks.

    Attributes:
        layers: (M, N) of each layer of a block.
        width: Features between blocks.
        tokens: Of all examples together; ``scoring``: of those that scores look at; ``at_once``: of one batch.
    """

    name: str
    blocks: int
    layers: Sequence[tuple[int, int]]
    width: int
    tokens: int
    scoring: int
    at_once: int
    samples: int = 65536

    @property
    def params(self) -> int:
        """Of a block."""
        return sum(M * N for M, N in self.layers)

    def single(self) -> float:
        """Operations in single precision for one block: three passes forward, gradients twice, scores and second moments."""
        tokens, P = self.tokens, self.params
        passes = 2 * tokens * P * (1 + (1 + OUTPUTS) + (1 + OUTPUTS) + 1)
        ranks = [min(layer) for layer in self.layers]
        scores = sum(2 * self.scoring * R * (N + OUTPUTS * M) for (M, N), R in zip(self.layers, ranks, strict=True))
        looked = min(tokens, self.samples)
        moments = sum(looked * N * N + 2 * looked * M * N + 2 * tokens * OUTPUTS * M * M for M, N in self.layers)
        return passes + scores + moments

    def double(self) -> float:
        """Operations in double precision for one block: two decompositions and one regression of each layer."""
        total = 0.0
        for M, N in self.layers:
            small, large = sorted((M, N))
            svd = 6 * large * small**2 + 20 * small**3
            eigh = 9 * (N**3 + M**3)
            regression = N**3 / 3 + 2 * M * N**2
            total += 3 * svd + eigh + regression + 4 * M * N * (M + N)
        return total

    def memory(self) -> float:
        """Bytes: one block twice, dense and compressed, what the fit of its widest layer holds, and one batch."""
        widest = max(max(layer) for layer in self.layers)
        return 8 * self.params + MATRICES * 8 * widest**2 + 4 * self.at_once * self.width * (2 + OUTPUTS)

    def disk(self) -> float:
        """Bytes: what each block reads of all examples, and the gradients of the outputs."""
        return 4 * self.tokens * self.width * (1 + OUTPUTS) * (self.blocks + 1)


def stack(width: int, blocks: int) -> Stack:
    """As of experiments/depth.py."""
    return Stack(
        f"stack of width {width}", blocks, [(4 * width, width), (width, 4 * width)], width, EXAMPLES * TOKENS, EXAMPLES * TOKENS, 4 * TOKENS
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "plan.csv")
    given = parser.parse_args()
    measured = pd.read_csv(RESULTS / "depth.csv")
    measured = measured[(measured["way"] == "blocks") & (measured["forms"] == "matrix")]
    rows = [(stack(row.width, row.blocks), row.cpu_seconds, row.peak_mib * 2**20) for row in measured.itertuples()]
    d, ffn = 4096, 11008
    llama = Stack("Llama-2-7B", 32, [*[(d, d)] * 4, (ffn, d), (ffn, d), (d, ffn)], d, 128 * 2048, 32 * 2048, 8 * 2048)
    table = pd.DataFrame(
        [
            {
                "network": held.name, "blocks": held.blocks, "params": held.params * held.blocks, "single": held.single() * held.blocks,
                "double": held.double() * held.blocks, "memory": held.memory(), "disk": held.disk(), "seconds": seconds, "peak": peak,
            }
            for held, seconds, peak in [*rows, (llama, None, None)]
        ]
    )  # fmt: skip
    table.to_csv(given.out, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
