"""How much faster several processes gather statistics and scores than one.

python experiments/processes.py [--processes 1 2] [--rounds 3] [--out experiments/results/processes.csv]

A VGG16 of half the width with random weights and made images, one thread in each process. The numbers of processes take turns; times are
of the slowest process, without its start. A round that is there already is not measured again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

from kept_rows import KeptRows

IMAGES, SCORING = 1024, 64


def measure() -> dict[str, float]:
    """Look at the network together with the processes that torchrun started."""
    import torch

    from lrp.blocking.none import Unblocked
    from lrp.decomposition.base import decompose
    from lrp.estimator.first_order import FirstOrderEstimator
    from lrp.evidence import Evidence
    from lrp.group import started
    from lrp.model.vgg16 import VGG16
    from lrp.partition import cut

    torch.set_num_threads(1)
    group = started()
    torch.manual_seed(0)
    model, images = VGG16(width=0.5).eval(), torch.randn(IMAGES, 3, 32, 32)
    evidence = Evidence(model, images, scoring_images=SCORING, group=group).of(FirstOrderEstimator(), (), 65536)
    factors = decompose(evidence.matrices, cut(Unblocked(), evidence.matrices))
    found = {}
    for name, work in {
        "decomposition": lambda: decompose(evidence.matrices, cut(Unblocked(), evidence.matrices), group=group),
        "statistics": lambda: evidence.statistics(("inputs", "outputs", "gradients")),
        "scores": lambda: evidence.moments(factors),
    }.items():
        group.all(None)
        start = time.perf_counter()
        work()
        found[name] = max(group.all(time.perf_counter() - start))
    return found if group.first else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("experiments/results/processes.csv"))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        found = measure()
        if found:
            print(json.dumps(found), flush=True)
        return
    rows = KeptRows(given.out)
    for number, count in itertools.product(range(given.rounds), given.processes):
        if rows.has(processes=count, round=number):
            continue
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), __file__, "--worker"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
        rows.add([{"processes": count, "round": number, "what": name, "seconds": seconds} for name, seconds in found.items()])
        print(count, found, flush=True)


if __name__ == "__main__":
    main()
