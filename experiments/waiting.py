"""How threads of torch wait for each other, and what that costs on free and on busy cores: OMP_WAIT_POLICY, GOMP_SPINCOUNT.

    python experiments/waiting.py --out experiments/results/waiting.csv

Each setting runs in a process of its own, since OpenMP reads it when it is loaded: small operations as scoring and compensation make them,
and a batch of a VGG16. Beside it run 0, 1 or 2 busy loops. Settings alternate; the table has medians.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import pandas as pd

SETTINGS = {
    "default": {}, "passive": {"OMP_WAIT_POLICY": "PASSIVE"}, "no spinning": {"GOMP_SPINCOUNT": "0"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
}  # fmt: skip
WORK = """
import sys, time, torch
torch.set_num_threads(int(sys.argv[1]))
x, w, g, d = torch.randn(16, 32, 16, 16), torch.randn(32, 32, 3, 3), torch.randn(200, 200), torch.randn(200, 200, dtype=torch.float64)
def small():
    torch.conv2d(x, w, padding=1); torch.einsum("ij,jk->ik", g, g); x.mul(2).sum(); torch.linalg.qr(d)
big, v = torch.randn(64, 128, 32, 32), torch.randn(128, 128, 3, 3)
def large():
    torch.conv2d(big, v, padding=1)
for name, step in (("small", small), ("large", large)):
    step()
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < float(sys.argv[2]):
        step(); count += 1
    print(name, count / (time.perf_counter() - begin))
"""
LOOP = "while True: pass"


def measure(setting: str, threads: int, busy: int, seconds: float) -> dict[str, float]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    loops = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(busy)]
    try:
        words = [sys.executable, "-c", WORK, str(threads), str(seconds)]
        text = subprocess.run(words, env=environment | SETTINGS[setting], capture_output=True, text=True, check=True).stdout
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    return {name: float(rate) for name, rate in (line.split() for line in text.splitlines())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("experiments/results/waiting.csv"))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    cells = [
        (setting, threads, busy)
        for busy in args.busy
        for threads in args.threads
        for setting in SETTINGS
        if threads > 1 or setting == "default"
    ]
    found: dict[tuple[str, int, int], list[dict[str, float]]] = {cell: [] for cell in cells}
    for _ in range(args.repeats):
        for cell in cells:
            found[cell].append(measure(*cell, args.seconds))
    rows = []
    for (setting, threads, busy), runs in found.items():
        rates = {f"{name}_per_second": round(median(run[name] for run in runs), 2) for name in ("small", "large")}
        rows.append({"busy_loops": busy, "threads": threads, "waiting": setting, **rates})
    table = pd.DataFrame(rows)
    table.to_csv(args.out, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
