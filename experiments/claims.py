"""The paper's claims about figure 3, computed from the tables of a sweep.

    python experiments/claims.py SWEEP_FOLDER [--out experiments/results]

Reads results.csv, layers.csv and scores.parquet of every job below the folder, prints tables and writes them as
CSV files: blocks, collapse, high_sparsity, spearman.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import pandas as pd
import torch

from lrp.config.parts import make
from lrp.errors import InputError
from lrp.files import write_whole
from lrp.layer.build import layer_matrices
from lrp.model.vgg16 import VGG16
from lrp.results.collect import collect

KEYS = ["blocking", "scorer"]


def blocks(table: pd.DataFrame) -> pd.DataFrame:
    """Blocks, components and seconds; the cut itself is timed here, on VGG16, nine times, the median."""
    rows = []
    with torch.device("meta"):
        matrices = layer_matrices(VGG16())
    for name, part in table.groupby("blocking", sort=False):
        blocking = make("blocking", name)
        times = []
        for _ in range(9):
            start = time.perf_counter()
            blocking(matrices)
            times.append(time.perf_counter() - start)
        scored = part[part["scorer"].isin(["perturbation", "variance"])]
        rows.append(
            {
                "blocking": name, "blocks": part["blocks"].iloc[0], "components": part["components"].iloc[0],
                "seconds_cut": round(statistics.median(times), 6), "seconds_svd": part["seconds_decompose"].median().round(1),
                "scoring_images": scored["scoring_images"].max(), "seconds_exact_scoring": scored["seconds_score"].max().round(0),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def collapse(table: pd.DataFrame) -> pd.DataFrame:
    """Layers without any component at each requested sparsity."""
    rows = []
    for folder, part in table.groupby("folder", sort=False):
        rows.append({**part[KEYS].iloc[0], **{f"{sparsity:g}": int(count) for sparsity, count in empty_layers(folder).items()}})
    return pd.DataFrame(rows)


def high_sparsity(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy (%) at 0.9 and above, as pruning leaves the network and with batch norm re-estimated."""
    part = table[table["sparsity"] >= 0.9]
    tables = []
    for column, label in (("accuracy_before_recovery", "none"), ("accuracy", "batchnorm")):
        wide = (100 * part.pivot_table(index=KEYS, columns="sparsity", values=column, sort=False)).round(2)
        tables.append(wide.rename(columns="{:g}".format).reset_index().assign(recovery=label))
    return pd.concat(tables, ignore_index=True)


def spearman(table: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation of the exact perturbation with the other scores, over all components and as the mean within layers."""
    rows = []
    scores: dict[tuple[str, str], pd.DataFrame] = {}
    for folder, part in table.groupby("folder", sort=False):
        scores[part["blocking"].iloc[0], part["scorer"].iloc[0]] = pd.read_parquet(Path(folder) / "scores.parquet")
    for (blocking, scorer), other in scores.items():
        base = scores.get((blocking, "perturbation"))
        if scorer == "perturbation" or base is None:
            continue
        both = base.assign(other=other["score"])
        within = [part["score"].corr(part["other"], "spearman") for _, part in both.groupby("layer") if len(part) > 2]
        rows.append(
            {
                "blocking": blocking, "perturbation_with": scorer, "over_all": round(both["score"].corr(both["other"], "spearman"), 3),
                "mean_within_layers": round(statistics.mean(within), 3), "least_layer": round(min(within), 3),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def empty_layers(folder: str) -> pd.Series:
    """Of each sparsity of a job how many layers have no component."""
    kept = pd.read_csv(Path(folder) / "layers.csv").groupby(["sparsity", "layer"], sort=False)["kept"].sum()
    return (kept == 0).groupby("sparsity").sum()


def asked(description: str | None, name: str) -> tuple[pd.DataFrame, Path | None, str]:
    """The rows of the sweeps that the command line names, the folder that tables are written to, and what their names begin with,
    ``name`` unless the command line says another."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="SWEEP_FOLDER")
    parser.add_argument("--out", type=Path, help="also write the tables as CSV files into this folder")
    parser.add_argument("--name", default=name, help=f"what the files' names begin with ({name})")
    args = parser.parse_args()
    try:
        table = collect([path for folder in args.folders for path in sorted(folder.iterdir()) if path.is_dir()])
    except (InputError, OSError) as error:
        raise SystemExit(f"lrp: {error}") from None
    jobs = table[[Path(folder, "layers.csv").exists() for folder in table["folder"]]]  # a sweep's own table has its jobs' rows once more
    if jobs.empty:
        raise SystemExit(f"lrp: no job below {', '.join(map(str, args.folders))} has a layers.csv")
    return jobs, args.out, args.name


def main() -> None:
    table, out, name = asked(__doc__, "figure3")
    for claim in (blocks, collapse, high_sparsity, spearman):
        result = claim(table)
        print(f"\n{claim.__doc__.splitlines()[0]}\n\n{result.to_string(index=False)}")
        if out:
            write_whole(out / f"{name}_{claim.__name__}.csv", lambda path, result=result: result.to_csv(path, index=False))


if __name__ == "__main__":
    main()
