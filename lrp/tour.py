"""A first look, in minutes and without a download: ``lrp tour``."""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PAPER = ("-m", "blocking=alds,square,none", "scorer=magnitude,relative_error,perturbation,variance")
OURS = ("method=output_aware",)
ALL = ("threads=1",)  # so small a network gains nothing by more, and where something else uses the cores they wait for each other
NEXT = """What to type next:
  lrp run method=output_aware sparsity.grid=[0.9] save=true      the compressed network, as a file that lrp.load reads
  lrp run -m blocking=alds,none recovery=batchnorm,finetune      what recovery brings the paper's method
  lrp run --help                                                 every option; docs/compress.md: your own network"""


def main(words: Sequence[str] | None = None, prog: str = "python -m lrp.tour") -> None:
    """Run the paper's grid and output_aware on the embedded digits; draw both, and say what was seen.

    Raises:
        SystemExit: With one sentence, for a folder that holds something, or the status of a run that failed.
    """
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("--out", type=Path, help="the folder (outputs/tour/ and the time)")
    parser.add_argument("words", nargs="*", metavar="option=value", help="for all runs, as of lrp run")
    chosen = parser.parse_args(words)
    folder = chosen.out or Path("outputs/tour", datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SystemExit(f"lrp: --out {folder}: it is no empty folder")
    print(f"{folder}: 12 runs of the paper's method, then output_aware", flush=True)
    for name, own, place in (("paper", PAPER, "hydra.sweep.dir"), ("output_aware", OURS, "hydra.run.dir")):
        done = subprocess.run([sys.executable, "-m", "lrp.run", *own, *ALL, *chosen.words, f"{place}='{folder / name}'"], check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
    from lrp.figure.tour import conclusion, draw_tour  # torch: after the runs, which have loaded it themselves
    from lrp.report.page import REPORT, write_report  # torch
    from lrp.results.collect import collect  # torch

    table = collect([folder / "paper", folder / "output_aware"])
    paths = [*draw_tour(table, folder / "tour"), write_report([folder], folder / REPORT)]
    print("", conclusion(table), "", NEXT, "", *paths, sep="\n")


if __name__ == "__main__":
    main()
