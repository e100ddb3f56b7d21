"""Tables and figures of the studies, from result tables alone."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only: no display is needed

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from lrp.errors import InputError
from lrp.files import write_text, write_whole
from lrp.studies.dim_rank import DimRank
from lrp.studies.job import collect_study
from lrp.studies.rank_switch import RankSwitch
from lrp.studies.simplicity_bias import SimplicityBias

# Figure 1 of the paper: accuracy by dim (rows) and rank (columns).
PAPER_RANKS = (-1, 5, 10, 20, 50, 100, 200, 500)
PAPER = {
    10: (0.91, 0.64, 0.79),
    20: (0.94, 0.82, 0.86, 0.90),
    50: (0.96, 0.87, 0.91, 0.92, 0.95),
    100: (0.98, 0.90, 0.93, 0.95, 0.96, 0.97),
    200: (0.98, 0.91, 0.95, 0.95, 0.96, 0.98, 0.98),
    500: (0.98, 0.91, 0.95, 0.97, 0.98, 0.98, 0.98, 0.98),
}
STUDIES = {study.name: study for study in (DimRank, RankSwitch, SimplicityBias)}
_MEASURES = ("network", "depth", "measure", "part", "step", "index", "value")


def summarise_study(name: str, folder: Path) -> list[Path]:
    """Write results.csv of all jobs of a sweep, their table of details, and the figures into the sweep's folder; the paths."""
    if name not in STUDIES:
        raise InputError(f"{folder}: this version of lrp has no study {name}, it has {', '.join(STUDIES)}")
    study, jobs = STUDIES[name], [path for path in sorted(folder.iterdir()) if path.is_dir()]
    table = collect_study(jobs, name, study.columns)
    merged = folder / "results.csv"
    write_whole(merged, lambda path: table.to_csv(path, index=False))
    details = collect_details(jobs, study.details)
    paths = [merged]
    if details is not None:
        write_whole(folder / study.details, lambda path: details.to_csv(path, index=False))
        paths.append(folder / study.details)
    if name == SimplicityBias.name:
        return paths + draw_simplicity_bias(table, details, folder / name)
    return paths + study.draw(table, folder / name)


def collect_details(folders: list[Path], file_name: str) -> pd.DataFrame | None:
    """The tables of details of these job folders, with the seed of each job's rows as first column; None where there are none."""
    tables = []
    for file in [file for folder in folders for file in sorted(folder.rglob(file_name))]:
        rows = file.parent / "results.csv"
        if rows.exists():
            table = pd.read_csv(file, keep_default_na=False, na_values=[""])
            if "seed" not in table:
                table.insert(0, "seed", pd.read_csv(rows)["seed"].iloc[0])
            tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else None


def one_setting(table: pd.DataFrame, keys: list[str], measured: list[str]) -> pd.DataFrame:
    """The rows of one setting, each cell and seed once (the last). Raises InputError where rows differ in anything else."""
    settings = [name for name in table if name not in [*keys, *measured, "seed", "folder"]]
    differing = [name for name in settings if table[name].nunique(dropna=False) > 1]
    if differing:
        raise InputError(f"the tables mix settings ({', '.join(differing)} differ): draw one setting at a time")
    return table.drop_duplicates(subset=[*keys, "seed"], keep="last")


# figure 1


def figure1_table(table: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and number of seeds a cell, in percent, beside the paper's value."""
    measured = ["accuracy", "accuracy_validation", "loss", "params_hidden", "params"]
    rows = one_setting(table, ["dim", "rank"], measured)
    cells = rows.groupby(["dim", "rank"])["accuracy"].agg(mean="mean", std="std", seeds="size").reset_index()
    paper = {(dim, rank): value for dim, values in PAPER.items() for rank, value in zip(PAPER_RANKS, values)}
    cells["paper"] = [paper.get((d, r)) for d, r in zip(cells["dim"], cells["rank"])]
    return cells


def figure1_markdown(cells: pd.DataFrame) -> str:
    """The table in the paper's shape: mean ± standard deviation (%), the paper's value in brackets."""
    ranks = sorted(cells["rank"].unique(), key=lambda rank: (rank != -1, rank))
    lines = ["| dim \\ rank | " + " | ".join(str(rank) for rank in ranks) + " |", "|---" * (len(ranks) + 1) + "|"]
    for dim, part in cells.groupby("dim"):
        found = {row.rank: row for row in part.itertuples(index=False)}
        texts = []
        for rank in ranks:
            row = found.get(rank)
            if row is None:
                texts.append("")
                continue
            spread = f" ± {100 * row.std:.1f}" if row.seeds > 1 else ""
            paper = f" ({100 * row.paper:.0f})" if row.paper == row.paper and row.paper is not None else ""
            texts.append(f"{100 * row.mean:.1f}{spread}{paper}")
        lines.append(f"| {dim} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def draw_figure1(table: pd.DataFrame, target: Path) -> list[Path]:
    """The table (.csv, .md) and the heat maps, ours and the paper's side by side (.png, .pdf); the paths."""
    cells = figure1_table(table)
    csv, markdown = target.parent / f"{target.name}_table.csv", target.parent / f"{target.name}_table.md"
    write_whole(csv, lambda path: cells.to_csv(path, index=False))
    write_text(markdown, figure1_markdown(cells))
    ranks = sorted({*cells["rank"]}, key=lambda rank: (rank != -1, rank))
    dims = sorted({*cells["dim"]})
    panels = [(f"here, mean of {cells['seeds'].max()} seeds", "mean")]
    if cells["paper"].notna().any():
        panels.append(("the paper", "paper"))
    figure, axes = plt.subplots(1, len(panels), figsize=(6.3 * len(panels), 4.2), squeeze=False)
    for ax, (title, column) in zip(axes[0], panels):
        grid = cells.pivot(index="dim", columns="rank", values=column).astype(float).reindex(index=dims, columns=ranks)
        _heat(ax, 100 * grid.to_numpy(float), dims, ranks, 60, 100)
        ax.set(title=title, xlabel="rank (-1: one dense matrix)", ylabel="dim")
    figure.suptitle(f"Test accuracy (%) on {table['dataset'].iloc[0]} by size and rank of the last hidden layer")
    return [csv, markdown, *_save(figure, target)]


# figure 2


def figure2_table(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds (shares) of every cell."""
    measured = ["accuracy", "accuracy_best_after_switch", "accuracy_before_switch", "accuracy_at_switch", "params_hidden", "loss"]
    keys = ["rank_before", "rank_after", "switch_epoch"]
    rows = one_setting(table, keys, measured)
    found = rows.groupby(keys)[measured[:4]].agg(["mean", "std"])
    found.columns = ["_".join(column) for column in found.columns]
    return found.assign(seeds=rows.groupby(keys).size()).reset_index()


def figure2_markdown(cells: pd.DataFrame) -> str:
    """A row a cell, in percent."""
    lines = ["| rank before | rank after | switch after epoch | final | best after the switch | right before | right after | seeds |", "|---" * 8 + "|"]
    for row in cells.itertuples(index=False):
        pair = lambda mean, std: "" if mean != mean else f"{100 * mean:.1f}" + (f" ± {100 * std:.1f}" if std == std else "")  # noqa: E731
        lines.append(
            f"| {row.rank_before} | {row.rank_after} | {row.switch_epoch or 'none'} | {pair(row.accuracy_mean, row.accuracy_std)} "
            f"| {pair(row.accuracy_best_after_switch_mean, row.accuracy_best_after_switch_std)} "
            f"| {pair(row.accuracy_before_switch_mean, row.accuracy_before_switch_std)} "
            f"| {pair(row.accuracy_at_switch_mean, row.accuracy_at_switch_std)} | {row.seeds} |"
        )
    return "\n".join(lines) + "\n"


def missing_cells(cells: pd.DataFrame) -> list[str]:
    """The cells of the grid that the table spans but does not hold."""
    switched = cells[cells["switch_epoch"] > 0]
    have = set(zip(cells["rank_before"], cells["rank_after"], cells["switch_epoch"]))
    wanted = [(a, a, 0) for a in sorted({*cells["rank_before"]})]
    befores, afters = sorted({*cells["rank_before"]}), sorted({*switched["rank_after"]})
    wanted += [(a, b, e) for e in sorted({*switched["switch_epoch"]}) for a in befores for b in afters if a != b]
    return [f"{a} to {b} after {e}" if e else f"{a} throughout" for a, b, e in wanted if (a, b, e) not in have]


def draw_figure2(table: pd.DataFrame, target: Path) -> list[Path]:
    """Final accuracy against the switch epoch, a line a pair of ranks, and a heat map of the pairs for each switch epoch (.png,
    .pdf), with the table (.csv, .md); what is missing is said in the title. Returns the paths."""
    cells = figure2_table(table)
    csv, markdown = target.parent / f"{target.name}_table.csv", target.parent / f"{target.name}_table.md"
    write_whole(csv, lambda path: cells.to_csv(path, index=False))
    write_text(markdown, figure2_markdown(cells))
    switched, same = cells[cells["switch_epoch"] > 0], cells[cells["switch_epoch"] == 0].set_index("rank_before")
    epochs = sorted(switched["switch_epoch"].unique())
    figure, axes = plt.subplots(1, 1 + len(epochs), figsize=(6.5 + 3.6 * len(epochs), 4.6), squeeze=False)
    ax = axes[0][0]
    befores = sorted(cells["rank_before"].unique(), key=lambda rank: (rank == -1, rank))
    afters = sorted({*cells["rank_after"]}, key=lambda rank: (rank == -1, rank))
    for (a, b), part in switched.groupby(["rank_before", "rank_after"]):
        colour = f"C{befores.index(a)}"
        style = {"color": colour, "linestyle": ["-", "--", ":", "-."][afters[::-1].index(b) % 4]}
        part = part.sort_values("switch_epoch")
        ax.plot(part["switch_epoch"], 100 * part["accuracy_mean"], "o", markersize=4, label=f"{a} to {b}", **style)
        spread = part["accuracy_std"].fillna(0)
        ax.fill_between(part["switch_epoch"], 100 * (part["accuracy_mean"] - spread), 100 * (part["accuracy_mean"] + spread), color=colour, alpha=0.15)
    for a, row in same.iterrows():
        ax.axhline(100 * row["accuracy_mean"], color=f"C{befores.index(a)}", linewidth=1, linestyle=(0, (1, 3)), label=f"{a} throughout")
    ax.set(xlabel="switch after epoch", ylabel="final test accuracy (%)", title="rank before to rank after (-1: dense)")
    ax.legend(fontsize=7, ncol=2)
    ax.grid(alpha=0.25)
    low, high = 100 * cells["accuracy_mean"].min(), 100 * cells["accuracy_mean"].max()
    for ax, epoch in zip(axes[0][1:], epochs):
        grid = np.full((len(befores), len(afters)), np.nan)
        for row in cells[cells["switch_epoch"].isin([0, epoch])].itertuples(index=False):
            grid[befores.index(row.rank_before), afters.index(row.rank_after)] = 100 * row.accuracy_mean
        _heat(ax, grid, befores, afters, low, high)
        ax.set(title=f"switch after epoch {epoch}", xlabel="rank after", ylabel="rank before")
    missing = missing_cells(cells)
    first = table.iloc[0]
    note = f"; missing: {', '.join(missing[:6])}{f' and {len(missing) - 6} more' if len(missing) > 6 else ''}" if missing else ""
    figure.suptitle(f"{first['dataset']}, {first['images']:,} images, {first['units']} units, {first['epochs']} epochs, {_count(cells['seeds'])} seeds{note}", fontsize=10)
    return [csv, markdown, *_save(figure, target)]


# simplicity bias


def simplicity_markdown(table: pd.DataFrame) -> str:
    """A row a network and depth: accuracy, effective ranks (exponential; entropy in nats) before and after training."""
    rows = _simplicity_rows(table)
    head = ["network", "depth", "accuracy", "layers, initial", "layers, trained", "Gram matrix, initial", "Gram matrix, trained", "seeds"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for (network, depth), part in rows.groupby(["network", "depth"], sort=False):
        ranks = [
            f"{part[f'{what}_exp_{moment}'].mean():.1f} ({part[f'{what}_entropy_{moment}'].mean():.2f})"
            for what in ("layers", "gram") for moment in ("initial", "trained")
        ]  # fmt: skip
        spread = f" ± {100 * part['accuracy'].std():.1f}" if len(part) > 1 else ""
        lines.append(f"| {network} | {depth} | {100 * part['accuracy'].mean():.1f}{spread} | " + " | ".join(ranks) + f" | {len(part)} |")
    return "\n".join(lines) + "\n"


def _simplicity_rows(table: pd.DataFrame) -> pd.DataFrame:
    columns = SimplicityBias.columns
    measured = [name for name in columns if name not in ("images", "epochs", "batch_size", "lr", "momentum", "scorer", "network", "depth")]
    return one_setting(table, ["network", "depth"], measured)


def pruned_markdown(table: pd.DataFrame, measures: pd.DataFrame) -> str:
    """Accuracy (%) of the collapsed network at each sparsity, 0 being unpruned; mean ± standard deviation over seeds."""
    curves = _pruned_curves(table, measures)
    sparsities = sorted(curves["sparsity"].unique())
    lines = ["| network | depth | " + " | ".join(f"{100 * s:g} %" for s in sparsities) + " |", "|---" * (len(sparsities) + 2) + "|"]
    for (network, depth), part in curves.groupby(["network", "depth"], sort=False):
        at = part.groupby("sparsity")["value"].agg(["mean", "std"])
        texts = [f"{100 * at.loc[s, 'mean']:.1f}" + (f" ± {100 * at.loc[s, 'std']:.1f}" if at.loc[s, "std"] == at.loc[s, "std"] else "") for s in sparsities]
        lines.append(f"| {network} | {depth} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def _pruned_curves(table: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    pruned = measures[measures["measure"] == "accuracy_pruned"].rename(columns={"index": "sparsity"})
    dense = _simplicity_rows(table)[["seed", "network", "depth", "accuracy"]].rename(columns={"accuracy": "value"}).assign(sparsity=0.0)
    return pd.concat([dense, pruned[["seed", "network", "depth", "sparsity", "value"]]], ignore_index=True)


def draw_simplicity_bias(table: pd.DataFrame, measures: pd.DataFrame | None, target: Path) -> list[Path]:
    """Effective rank by depth, the linear network's singular values over time, accuracy against sparsity of the collapsed
    networks (.png, .pdf), and the tables (.md). Raises InputError without the table of measures."""
    missing = [*_MEASURES] if measures is None else [name for name in _MEASURES if name not in measures]
    if missing:
        raise InputError(f"the table of measures lacks the columns {', '.join(missing)}")
    rows = _simplicity_rows(table)
    measures = measures.drop_duplicates(subset=["seed", *_MEASURES[:-1]], keep="last")
    markdown = target.parent / f"{target.name}_table.md"
    write_text(markdown, simplicity_markdown(table) + "\n" + pruned_markdown(table, measures))
    networks, depths = list(dict.fromkeys(rows["network"])), sorted(rows["depth"].unique())
    linear = measures[(measures["network"] == "linear") & (measures["part"] == "network")]
    columns = max(2, len(networks) + 1, len(depths))
    figure, axes = plt.subplots(3, columns, figsize=(3.6 * columns, 10), squeeze=False)
    for ax, network in zip(axes[0], networks):
        part = rows[rows["network"] == network]
        for what, colour in (("layers", "C0"), ("gram", "C1")):
            for moment, line in (("initial", "--"), ("trained", "-")):
                values = part.groupby("depth")[f"{what}_entropy_{moment}"].agg(["mean", "std"])
                ax.errorbar(values.index, values["mean"], values["std"].fillna(0), color=colour, linestyle=line, marker="o", markersize=3, label=f"{what}, {moment}")
        ax.set(title=network, xlabel="matrices a layer", ylabel="effective rank (entropy, nats)", xscale="log", xticks=depths, xticklabels=depths)
        ax.set_xticks([], minor=True)
        ax.legend(fontsize=7)
    if not linear.empty:
        ax = axes[0][len(networks)]
        found = linear[linear["measure"] == "effective_rank_entropy"]
        for i, depth in enumerate(depths):
            line = found[found["depth"] == depth].groupby("step")["value"].mean()
            ax.plot(line.index, line, marker="o", markersize=3, color=f"C{i}", label=f"{depth} matrices a layer")
        ax.set(title="linear, end to end", xlabel="SGD step", ylabel="effective rank (entropy, nats)")
        ax.legend(fontsize=7)
        singular = linear[linear["measure"] == "singular_value"]
        for ax, depth in zip(axes[1], depths):
            part = singular[singular["depth"] == depth].groupby(["index", "step"])["value"].mean().unstack("step")
            for k, line in part.iterrows():
                ax.plot(line.index, line, color=plt.cm.viridis(k / max(1, len(part) - 1)), linewidth=1.2)
            ax.set(title=f"singular values, {depth} a layer", xlabel="SGD step", ylim=(0, None))
    curves = _pruned_curves(table, measures)
    for ax, network in zip(axes[2], networks):
        for i, depth in enumerate(depths):
            part = curves[(curves["network"] == network) & (curves["depth"] == depth)].groupby("sparsity")["value"].agg(["mean", "std"])
            spread = part["std"].fillna(0)
            ax.plot(part.index, 100 * part["mean"], marker="o", markersize=3, color=f"C{i}", label=f"{depth} matrices a layer")
            ax.fill_between(part.index, 100 * (part["mean"] - spread), 100 * (part["mean"] + spread), color=f"C{i}", alpha=0.15)
        ax.set(title=f"{network}, collapsed and pruned", xlabel="sparsity", ylabel="test accuracy (%)")
        ax.legend(fontsize=7)
    for ax in axes.flat:
        if ax.has_data():
            ax.grid(alpha=0.25)
        else:
            ax.set_axis_off()
    return [markdown, *_save(figure, target)]


def _count(seeds: pd.Series) -> str:
    return str(seeds.min()) if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"


def _heat(ax: plt.Axes, grid: np.ndarray, rows: list, columns: list, low: float, high: float) -> None:
    """A heat map with its numbers; what is missing stays empty."""
    ax.imshow(grid, vmin=low, vmax=max(high, low + 1e-9), cmap="viridis", aspect="auto")
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    for (i, j), value in np.ndenumerate(grid):
        if value == value:
            ax.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=8, color="black" if value > (low + high) / 2 else "white")


def _save(figure: plt.Figure, target: Path) -> list[Path]:
    figure.tight_layout()
    paths = [target.parent / f"{target.name}{suffix}" for suffix in (".png", ".pdf")]
    for path in paths:
        write_whole(path, lambda file: figure.savefig(file, dpi=130))
    plt.close(figure)
    return paths
