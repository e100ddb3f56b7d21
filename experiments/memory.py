"""How much memory lrp.compress takes at its peak, in multiples of what the network's weights take.

    python experiments/memory.py --width 700                                      # 3.3 million parameters, half a minute
    MALLOC_MMAP_THRESHOLD_=1048576 python experiments/memory.py --width 700       # without what glibc's heap keeps of freed memory

A chain of eight Linear layers. The peak is that of the process (Linux: VmHWM) over what it had before; a tiny network is
compressed first, so that what is imported late does not count. The digest shows whether a change to lrp changed the result.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
from pathlib import Path

import torch
from torch import nn

import lrp


def of_process(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def chain(width: int, first: int, length: int = 8, outputs: int = 10) -> nn.Module:
    """Linear layers, ``length`` of them, with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise([first, *[width] * (length - 1)]):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs)).eval()


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=700)
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--method", default="output_aware")
    args = parser.parse_args()
    torch.manual_seed(0)
    str(lrp.compress(chain(16, 12), torch.randn(64, 12), 0.5, method=args.method)[1])
    model, x = chain(args.width, 512), torch.randn(args.examples, 512)
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    before = of_process("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    small, _ = lrp.compress(model, x, 0.5, method=args.method)
    peak = (of_process("VmHWM") - before) / weights
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in small.state_dict().values())).hexdigest()
    print(f"{args.method}: {weights // 4:,} parameters, peak {peak:.1f} times the weights, result {digest[:16]}")


if __name__ == "__main__":
    main()
