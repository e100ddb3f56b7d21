"""A first look, in minutes and without a download: ``lrp tour``."""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

PAPER = ("-m", "blocking=alds,square,none", "scorer=magnitude,relative_error,perturbation,variance")
OURS = ("method=output_aware",)
ALL = (
    "threads=1",  # so small a network gains nothing by more, and where something else uses the cores they wait for each other
    "sparsity.grid=[0,0.2,0.4,0.5,0.6,0.8,0.9]",
)
BESIDE = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")  # of the paper's runs two at a time, where there are two cores
NEXT = """What to type next:
  lrp run method=output_aware sparsity.grid=[0.9] save=true      the compressed network, as a file that lrp.load reads
  lrp run -m blocking=alds,none recovery=batchnorm,finetune      what recovery brings the paper's method
  lrp run --help                                                 every option; docs/compress.md: your own network"""


def main(words: Sequence[str] | None = None, prog: str = "python -m lrp.tour") -> None:
    """Run the paper's grid and output_aware beside each other on the embedded digits; draw both, and say what was seen.

    Raises:
        SystemExit: With one sentence, for a folder that holds something, or the status of a run that failed.
    """
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("--out", type=Path, help="the folder (outputs/tour/ and the time)")
    parser.add_argument("words", nargs="*", metavar="option=value", help="for all runs, as of lrp run")
    chosen = parser.parse_args(words)
    folder = chosen.out or Path("outputs/tour", datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    if folder.exists() and (not folder.is_dir() or {place.name for place in folder.iterdir()} - {"paper", "output_aware"}):
        raise SystemExit(f"lrp: --out {folder}: it is no empty folder, nor one of a tour that was stopped")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"lrp: --out {folder}: {error.strerror}; give a folder that can be made") from None
    print(f"{folder}: 12 runs of the paper's method, and output_aware beside them", flush=True)
    given = {word.split("=")[0] for word in chosen.words}
    both = [word for word in ALL if word.split("=")[0] not in given] + chosen.words
    beside = BESIDE if (os.cpu_count() or 1) > 1 and not any(name.startswith("hydra") for name in given) else ()
    refused: dict[str, Path] = {}
    runs = [
        _started(folder / "paper", "hydra.sweep.dir", "", refused, *PAPER, *beside, *both),
        _started(folder / "output_aware", "hydra.run.dir", "[output_aware] ", refused, *OURS, *both),
    ]
    from lrp.figure.tour import conclusion, draw_tour  # torch: while the runs load it themselves
    from lrp.report.page import REPORT, write_report  # torch
    from lrp.results.collect import collect  # torch

    try:
        for run, told in runs:
            told.join()
            if run.wait():
                raise SystemExit(run.returncode)
    except BaseException as error:  # Ctrl-C reached them as well: what they say of it is read to its end
        for run, told in runs:
            if isinstance(error, SystemExit):
                run.terminate()
            told.join(10)  # a worker that outlives its run holds its output open
        if isinstance(error, KeyboardInterrupt) or getattr(error, "code", None) in (130, 143):
            print(f"to go on with the tour: lrp tour --out {shlex.quote(str(folder))}", file=sys.stderr)
        raise
    table = collect([folder / "paper", folder / "output_aware"])
    paths = [*draw_tour(table, folder / "tour"), write_report([folder], folder / REPORT)]
    print("", conclusion(table), "", NEXT, "", *paths, sep="\n")


def _started(
    folder: Path, place: str, prefix: str, refused: dict[str, Path], *words: str
) -> tuple[subprocess.Popen[str], threading.Thread]:
    """A run into a folder, and the thread that prints its lines; of a refusal that another run has printed, in ``refused``, none."""
    again = ["resume=true"] if folder.exists() else []
    command = [sys.executable, "-m", "lrp.run", *words, *again, f"{place}='{folder}'"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = run.stdout
    assert lines is not None, "it is a pipe"

    def tell() -> None:
        for line in lines:
            if not line.startswith("lrp: ") or refused.setdefault(line, folder) is folder:
                print(prefix + line, end="", flush=True)

    told = threading.Thread(target=tell, daemon=True)
    told.start()
    return run, told


if __name__ == "__main__":
    main()
