"""Whether lrp still computes what it computed: five fixed-seed runs on embedded data, compared to the byte with an earlier record.

    python experiments/same_results.py outputs/before                           # before a refactoring
    python experiments/same_results.py outputs/after --against outputs/before   # after it; status 1 where anything differs

Each run starts without a cache, on one thread. Compared are results.csv (but for the columns of seconds), layers.csv or epochs.csv,
the scores, and the saved networks with the descriptions of their layers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from safetensors import safe_open

RUNS = {
    "default": [],
    "exact": ["blocking=square", "scorer=variance", "estimator=exact", "calibration.scoring_images=16", "sparsity.grid=[0.5,0.9]"],
    "output_aware": ["method=output_aware", "forms=matrix"],
    "alds": ["method=alds", "recovery=batchnorm"],
    "figure1_small": ["experiment=figure1_small"],
}
# Rows hold these measurements beside the results: no two runs agree on them.
UNREPEATABLE = ("seconds",)
ADDED = ("form",)  # columns that records made before them lack


def run(folder: Path) -> None:
    """Run everything below an empty folder, with the lrp of the working directory."""
    for name, words in RUNS.items():
        place = (folder / name).resolve()
        fixed = [f"hydra.run.dir={place}", f"hydra.sweep.dir={place}", f"cache_dir={place}/cache", "threads=1"]
        if not name.startswith("figure"):
            fixed.append("save=true")
        print(f"{name}: python -m lrp.run {' '.join([*words, *fixed])}", flush=True)
        subprocess.run([sys.executable, "-m", "lrp.run", *words, *fixed], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def files(folder: Path) -> list[Path]:
    """What is compared, by its path below the folder."""
    patterns = ("results.csv", "layers.csv", "epochs.csv", "scores.parquet", "calibration.csv", "model-*.safetensors")
    found = {file for pattern in patterns for file in folder.rglob(pattern)}
    return sorted(file.relative_to(folder) for file in found if "cache" not in file.parts)


def content(file: Path) -> object:
    """What of a file has to stay the same, as something that can be compared."""
    if file.suffix == ".csv":
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
        return table.drop(columns=[name for name in table if name.startswith((*UNREPEATABLE, *ADDED))]).to_csv(index=False)
    if file.suffix == ".parquet":
        return pd.read_parquet(file).to_csv(index=False)
    with safe_open(file, framework="np") as stored:
        description = json.loads(stored.metadata()["lrp"])
        description = {name: description[name] for name in ("layers", "folded", "biased", "same", "report") if name in description}
        description["report"]["totals"].pop("warnings", None)  # what they say may be worded better
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}
    return description, {name: (value.dtype.str, value.shape, value.tobytes()) for name, value in tensors.items()}


def differences(before: Path, after: Path) -> Iterator[str]:
    """A line for each file that is missing or differs."""
    ours, theirs = files(after), files(before)
    if not theirs:
        yield f"{before} holds no results"
    for name in sorted({*ours, *theirs}):
        if name not in ours or name not in theirs:
            yield f"{name} is only in {after if name in ours else before}"
        elif content(before / name) != content(after / name):
            yield f"{name} differs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the runs go; runs that are there already are not repeated")
    parser.add_argument("--against", type=Path, help="the folder of an earlier record")
    arguments = parser.parse_args()
    if not files(arguments.folder):
        run(arguments.folder)
    if arguments.against is not None:
        found = list(differences(arguments.against, arguments.folder))
        print("\n".join(found) or f"all {len(files(arguments.folder))} files are the same")
        raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
