"""The long campaign: kills, damaged files, full disks, processes that share a cache, bad inputs; its counts go to a table.

    make fault-campaign

The fast tests beside this file try a few of the same, from a fixed seed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pandas as pd
from faults.children import PATIENCE, warm_up
from faults.outcomes import Counts

ROOT = Path(__file__).resolve().parent.parent.parent
TABLE = ROOT / "experiments/results/reliability.csv"
SECTIONS = ("kills", "saved", "cached", "full_disk", "shared_cache", "inputs")  # each a module of this name, with a function of this name


def commit() -> str:
    """The commit that was tested, with + where lrp/ or conf/ differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "lrp", "conf") else "")


def store(counts: Counts, tested: str, table: Path) -> None:
    """Put the counts of a section in the place of those that the table has of it."""
    new = pd.DataFrame([{**row, "commit": tested} for row in counts.rows()])
    old = pd.read_csv(table) if table.exists() else new.iloc[:0]
    whole = pd.concat([old[old["section"] != counts.section], new], ignore_index=True)
    whole["order"] = [SECTIONS.index(section) for section in whole["section"]]
    whole.sort_values("order", kind="stable").drop(columns="order").to_csv(table, index=False)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"of {', '.join(SECTIONS)}, divided by commas")
    parser.add_argument("--share", type=float, default=1, help="of the whole campaign, in (0, 1]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--patience", type=float, default=1, help="how many times longer than on a core of its own a run may take")
    parser.add_argument("--table", type=Path, default=TABLE, help="the CSV file that the counts go to")
    parser.add_argument("--work", type=Path, default=None, help="a folder for all that is written; default: a temporary one")
    options = parser.parse_args(words)
    PATIENCE[0] = options.patience
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        table, tested = options.table.resolve(), commit()
        work.mkdir(parents=True, exist_ok=True)
        os.chdir(work)
        warm_up()
        for name in options.only.split(","):
            begin = time.monotonic()
            counts = getattr(import_module(f"faults.{name}"), name)(work / name, options.share, options.seed)
            store(counts, tested, table)
            print(f"{name}: {counts.numbers} ({time.monotonic() - begin:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
