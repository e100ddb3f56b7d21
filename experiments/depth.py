"""How memory and time of block-by-block compression grow with the depth of a network, beside compressing it whole.

python experiments/depth.py [--blocks 8 16 32] [--width 768] [--out experiments/results/depth.csv]

A stack of equal residual blocks (two Linear layers, of ``width`` and four times that) with random weights; each measurement in a process
of its own, on one thread: the peak of its resident memory beyond what it took for a network of one small block, when everything is loaded.
A row that is there already is not measured again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import tempfile
import time
from pathlib import Path

from kept_rows import KeptRows
from own_process import measured

EXAMPLES, TOKENS, OUTPUTS = 16, 64, 8


def measure(way: str, blocks: int, width: int, forms: str) -> dict[str, float]:
    """Compress once, in this process."""
    import torch
    from safetensors.torch import save_file
    from torch import nn

    import lrp
    from lrp.compensation.least_squares import LeastSquares
    from lrp.streaming.weights import Weights

    torch.set_num_threads(1)
    refit = LeastSquares(ridge=0.03)  # with few examples others would be tried, in up to seventeen fits in place of one

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.down(torch.relu(self.up(x)))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(32, width)
            self.blocks = nn.ModuleList(Block() for _ in range(blocks))
            self.head = nn.Linear(width, OUTPUTS)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean(1))

    torch.manual_seed(0)
    x = torch.randn(EXAMPLES, TOKENS, 32)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for i in range(blocks):  # a file for each block, of which one is in memory
            save_file({f"blocks.{i}.{name}": value for name, value in Block().state_dict().items()}, place / f"{i}.safetensors")
        ends = {"first": nn.Linear(32, width), "head": nn.Linear(width, OUTPUTS)}
        save_file(
            {f"{name}.{key}": value for name, end in ends.items() for key, value in end.state_dict().items()}, place / "ends.safetensors"
        )
        names = {
            f"blocks.{i}.{name}": f"{i}.safetensors" for i in range(blocks) for name in ("up.weight", "up.bias", "down.weight", "down.bias")
        }
        names |= {f"{name}.{key}": "ends.safetensors" for name in ends for key in ("weight", "bias")}
        (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        if way == "blocks":
            lrp.compress_blocks(Network, place, x, 0.5, place / "small", blocks="blocks", batch_size=4, compensation=refit, forms=forms)
        else:
            model = Network()
            weights = Weights(place)
            model.load_state_dict({name: weights.read(name) for name in weights.files})
            lrp.compress(
                model, x, 0.5, method="singular_vectors", scorer="perturbation", selection="lagrangian", compensation=refit, forms=forms,
                exclude=["first", "head"], scoring_images=16,
            )  # fmt: skip
        seconds = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        params = blocks * (8 * width * width + 5 * width)
    return {"weights_mib": 4 * params / 2**20, "peak_mib": (peak - before) / 1024, "cpu_seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--forms", default="matrix")
    parser.add_argument("--ways", nargs="+", default=["blocks", "whole"], choices=["blocks", "whole"])
    parser.add_argument("--out", type=Path, default=Path("experiments/results/depth.csv"))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        measure(given.one[0], 1, 8, given.forms)
        print(json.dumps(measure(given.one[0], int(given.one[1]), given.width, given.forms)))
        return
    rows = KeptRows(given.out)
    for way, blocks in itertools.product(given.ways, given.blocks):
        case = {"way": way, "forms": given.forms, "width": given.width, "blocks": blocks}
        if rows.has(**case):
            continue
        rows.add([{**case, **measured(__file__, "--one", way, blocks, "--width", given.width, "--forms", given.forms)}])
        print(rows.table.iloc[-1].to_dict(), flush=True)


if __name__ == "__main__":
    main()
