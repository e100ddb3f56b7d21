"""The trials of searches as one table, with the accuracy of what was found.

    python experiments/collect_search.py outputs/<run> [...] --out experiments/results/form_search.csv

A run folder gives one row per trial: its network, data set, sparsity, what was set, the divergence on the half that trials are compared on,
whether it was the best; and of the best the accuracy of the network that was compressed with it, on the part that the run measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from lrp.files import write_whole

BASE = ("estimator.output", "estimator.temperature", "scorer.depth", "scorer.floor")


def rows(folder: Path) -> pd.DataFrame:
    """The trials of a run; ``base``: the options that it began with where they are not the defaults."""
    results, trials = pd.read_csv(folder / "results.csv"), pd.read_csv(folder / "search.csv")
    first = results.iloc[0]
    base = " ".join(word for word in str(first["options"]).split() if word.split("=")[0] in BASE)
    found = trials.merge(results[["sparsity", "accuracy", "part"]], on="sparsity")
    found["accuracy"] = found["accuracy"].where(found["best"])
    return found.assign(network=first["model"], dataset=first["dataset"], calibration_images=first["calibration_images"], base=base)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    table = pd.concat([rows(folder) for folder in args.folders], ignore_index=True)
    first = ["network", "dataset", "calibration_images", "base", "sparsity", "set", "divergence", "best", "accuracy", "part"]
    write_whole(args.out, lambda path: table[first].to_csv(path, index=False))
    print(table[first].to_string())


if __name__ == "__main__":
    main()
