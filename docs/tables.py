"""Write the tables in README.md and docs/results/*.md from experiments/results/*.csv.

    python docs/tables.py

A table stands between <!-- table: NAME --> and <!-- end -->; what is between them is replaced, and nothing else is touched.
tests/test_docs.py runs this and asserts that nothing changes: edit the CSV or this script, never the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

from lrp.figure.figure1 import figure1_markdown, figure1_table
from lrp.figure.figure2 import figure2_markdown, figure2_table
from lrp.figure.simplicity_bias import pruned_markdown, simplicity_markdown
from lrp.files import write_text
from lrp.results.tables import read_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments/results"
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; a missing value is an empty cell."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join("" if pd.isna(cell) else str(cell) for cell in line) + " |\n" for line in lines)


def read(name: str) -> pd.DataFrame:
    return pd.read_csv(RESULTS / f"{name}.csv")


def percent(values: pd.Series, digits: int = 2) -> str:
    """Mean ± standard deviation of shares, in per cent; of one value no deviation."""
    spread = f" ± {100 * values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{100 * values.mean():.{digits}f}{spread}"


def removed(share: float) -> str:
    return f"{100 * share:g} %"


# figure 3


def figure3(recovery: str) -> str:
    part = read("figure3_high_sparsity").query("recovery == @recovery").drop(columns="recovery")
    header = ["blocking", "scorer", *(removed(float(name)) for name in part.columns[2:])]
    cells = part.iloc[:, 2:].map(lambda value: "" if pd.isna(value) else f"{value:.1f}")
    return markdown(header, [[*names, *values] for names, values in zip(part.iloc[:, :2].values, cells.values)])


def figure3_collapse() -> str:
    table = read("figure3_collapse").set_index(["blocking", "scorer"])
    table = table[[name for name in table if float(name) >= 0.9]]
    return markdown(
        ["blocking", "scorer", *(removed(float(name)) for name in table)],
        [[*key, *("" if pd.isna(value) else int(value) for value in row)] for key, row in zip(table.index, table.values)],
    )


def figure3_blocks() -> str:
    rows = []
    for r in read("figure3_blocks").itertuples():
        scoring = f"{r.seconds_exact_scoring:.0f} ({r.scoring_images})"
        rows.append([r.blocking, r.blocks, f"{r.components:,}", f"{r.seconds_cut:f}", r.seconds_svd, scoring])
    header = ["blocking", "blocks", "components", "seconds to cut", "seconds for the SVDs", "seconds of exact scoring (images)"]
    return markdown(header, rows)


def figure3_spearman() -> str:
    header = ["blocking", "perturbation with", "over all components", "mean within layers", "lowest layer"]
    return markdown(header, read("figure3_spearman").astype(object).values)


def figure3_k() -> str:
    rows = [
        [r.blocking_k, r.blocks, f"{r.components:,}", f"{100 * r.accuracy_before_recovery:.1f}", f"{100 * r.accuracy:.1f}"]
        for r in read("figure3_k").itertuples()
    ]
    return markdown(["k", "blocks", "components", "before", "after"], rows)


def alds_authors() -> str:
    table = read("alds_authors_code")
    shares = 1 - table[["params_kept", "macs_kept"]]
    rows = (100 * pd.concat([shares, table[["accuracy", "accuracy_batchnorm"]]], axis=1)).map("{:.1f}".format)
    return markdown(["parameters removed (%)", "MACs removed (%)", "accuracy", "batch norm re-estimated"], rows.values)


# nothing trained


def _setting(row: pd.Series) -> str:
    """A method with what sets it apart: blocking, compensation, layers left alone, an unusual number of images."""
    words = [f"`{row['method']}`"]
    if row["blocking"] in ("alds", "square"):
        words.append(f"`blocking={row['blocking']}`")
    if row["compensation"] == "least_squares" and row["method"] != "output_aware":
        words.append("`compensation=least_squares`")
    if isinstance(row["exclude"], str):
        words.append(f"`exclude=[{row['exclude']}]`")
    if row["calibration_images"] not in (4000, 12000):
        words.append(f"{row['calibration_images']:,} images")
    return ", ".join(words)


def no_retraining(name: str) -> str:
    """One row per setting, without and with batch norm re-estimated; one column per sparsity."""
    table = read(name)
    table["setting"] = table.apply(_setting, axis=1)
    grid = sorted(table["sparsity"].unique())
    rows = []
    order = ["output_aware", "balf", "alds", *table["method"]]
    for setting in sorted(table["setting"].unique(), key=lambda text: (order.index(text.split("`")[1]), len(text))):
        part = table[table["setting"] == setting]
        for column, label in (("accuracy_before_recovery", ""), ("accuracy", ", batch norm re-estimated")):
            found = {share: percent(cells[column]) for share, cells in part.groupby("sparsity")}
            rows.append([setting + label, *(found.get(share, "") for share in grid)])
    return markdown(["removed", *map(removed, grid)], rows)


def _options(text: object) -> dict[str, str]:
    return dict(word.split("=", 1) for word in text.split()) if isinstance(text, str) else {}


def ablation() -> str:
    """What each row changes in the first setting."""
    first = {
        "decomposition": "svd", "scorer": "noise_to_signal", "selection": "lagrangian", "compensation": "least_squares",
        "scorer.depth": "0.5", "estimator.output": "hellinger",
    }  # fmt: skip
    defaults = {"scorer.depth": "0", "estimator.output": "logits"}
    table, rows = read("no_retraining_ablation"), []
    for _, row in table[(table["calibration_images"] == 4000)].iterrows():
        options = _options(row["options"])
        setting = {name: row[name] for name in ("decomposition", "scorer", "selection", "compensation")}
        for name in defaults:
            if name != "scorer.depth" or row["scorer"] == "noise_to_signal":
                setting[name] = options.get(name, defaults[name])
        setting |= {name: value for name, value in options.items() if name in ("compensation.metric", "rounds.keep_factor")}
        if row["selection"] == "global":
            setting["selection.per_parameter"] = str(row["per_parameter"]).lower()
        changed = " ".join(f"{name}={value}" for name, value in setting.items() if first.get(name) != value)
        rows.append((changed != "", f"`{changed}`" if changed else "`output_aware`, as above", row))
    rows.sort(key=lambda each: each[0])
    return markdown(
        ["changed", "accuracy", "batch norm re-estimated"],
        [[label, f"{100 * row['accuracy_before_recovery']:.2f}", f"{100 * row['accuracy']:.2f}"] for _, label, row in rows],
    )


def two_sided() -> str:
    table = read("no_retraining_ablation").query("calibration_images == 12000").sort_values("sparsity")
    return markdown(
        ["removed", *map(removed, table["sparsity"])],
        [
            ["`decomposition=two_sided estimator.output=logits`", *(f"{100 * value:.2f}" for value in table["accuracy_before_recovery"])],
            ["batch norm re-estimated", *(f"{100 * value:.2f}" for value in table["accuracy"])],
        ],
    )


# trained


def retraining() -> str:
    rows = []
    for _, row in read("retraining").sort_values("accuracy", ascending=False).iterrows():
        options = _options(row["options"])
        epochs = options.pop("recovery.epochs", "20")
        kept = [f"`{name}={value}`" for name, value in options.items() if name.split(".")[0] in ("recovery", "macs_removed")]
        kept = [word for word in kept if "precision" not in word]
        start = f"`method={row['method']}`" if row["method"] in ("alds", "random") else f"`{row['decomposition']}`, `{row['scorer']}`"
        start += ", `blocking=alds`" if row["blocking"] == "alds" else ""
        start += f", without {row['exclude']}" if isinstance(row["exclude"], str) else ""
        shares = [f"{100 * row[name]:.1f}" for name in ("sparsity_params", "sparsity_macs")]
        accuracies = [f"{100 * row[name]:.2f}" for name in ("accuracy_before_recovery", "accuracy")]
        difference = f"{100 * (row['accuracy'] - row['accuracy_dense']):+.2f}"
        rows.append([start, epochs, " ".join(kept), ", ".join(shares), *accuracies, difference])
    return markdown(["ranks by", "epochs", "options", "parameters, MACs removed (%)", "before", "after", "from dense"], rows)


# scoring


def scoring_speed() -> str:
    rows = []
    for r in read("scoring_speed").itertuples():
        seconds = [f"{r.seconds_naive:,.0f} s", f"{r.seconds_exact:,.0f} s", f"{r.seconds_first_order:.1f} s"]
        faster = [f"{r.ratio_exact:.2f} ({r.bound_exact:.2f})", f"{r.ratio_first_order:.0f} ({r.bound_first_order:,.0f})"]
        rows.append([f"{r.network}, {r.blocking}", f"{r.components:,}", *seconds, *faster])
    header = ["network, blocking", "components", "naive", "exact", "first order", "exact: times faster", "first order: times faster"]
    return markdown(header, rows)


def scoring_quality() -> str:
    rows = []
    for (network, blocking), part in read("scoring_quality").groupby(["network", "blocking"], sort=False):
        first = part.iloc[0]
        cells = part.set_index("sparsity")
        accuracies = [f"{cells.accuracy_exact[s]:.1f} / {cells.accuracy_first_order[s]:.1f}" for s in (0.8, 0.95)]
        overlaps = [f"{100 * cells.overlap[s]:.1f} %" for s in (0.8, 0.95)]
        correlations = [f"{first.spearman_perturbation:.5f}", f"{first.spearman_variance:.5f}"]
        rows.append([f"{network}, {blocking}", first.images, *correlations, *overlaps, *accuracies])
    return markdown(
        [
            "network, blocking", "images", "Spearman, perturbation", "variance", "kept by both at 80 %", "95 %",
            "accuracy at 80 %, exact / first order", "95 %",
        ],
        rows,
    )  # fmt: skip


def scoring_correlation() -> str:
    columns = ["spearman", "kendall", "pearson", "pearson_of_logs"]
    rows = [
        [
            r.perturbation_with, r.blocking, *(f"{getattr(r, name):.2f}" for name in columns),
            f"{r.within_layers_mean:.2f} ({r.within_layers_least:.2f} to {r.within_layers_most:.2f})", f"{r.layer_means:.2f}",
        ]
        for r in read("scoring_correlation").itertuples()
    ]  # fmt: skip
    header = ["perturbation with", "blocking", "Spearman over all", "Kendall", "Pearson", "Pearson of the logarithms"]
    return markdown([*header, "within layers: mean (lowest to highest)", "of the layers' means"], rows)


def scoring_images() -> str:
    table = read("scoring_images").query("scorer == 'perturbation'")
    counts = sorted(table["images"].unique())
    rows = []
    for output, part in table.groupby("output", sort=False):
        part = part.set_index("images")
        rows.append([f"{output}, Spearman", *(f"{part.spearman_of_two_sets[n]:.4f}" for n in counts)])
        rows.append([f"{output}, kept by both at 95 %", *(f"{100 * part['overlap_0.95'][n]:.0f} %" for n in counts)])
    return markdown(["images", *(f"{n:,}" for n in counts)], rows)


def scoring_outputs() -> str:
    rows = [
        [row["blocking"], row["output"], row["scorer"], f"{row['spearman_with_first']:.4f}"]
        + [f"{100 * row[f'overlap_{s}']:.1f} %, {row[f'accuracy_{s}']:.1f}" for s in (0.8, 0.9, 0.95)]
        for _, row in read("scoring_outputs").iterrows()
    ]
    header = ["blocking", "output", "scorer", "Spearman with the first row", "kept by both at 80 %, accuracy", "90 %", "95 %"]
    return markdown(header, rows)


def scoring_fewer() -> str:
    rows = [
        [
            row["scored"], row["share_of_evaluations"], f"{row['spearman']:.4f}", f"{100 * row['overlap_0.9']:.1f} %",
            " / ".join(f"{row[f'accuracy_{s}']:.1f}" for s in (0.8, 0.9, 0.95)),
        ]
        for _, row in read("scoring_fewer").iterrows()
    ]  # fmt: skip
    return markdown(["scored", "share of the evaluations", "Spearman", "kept at 90 %", "accuracy at 80 / 90 / 95 %"], rows)


# speed


def speed(network: str) -> str:
    rows = []
    for r in read("speed_summary").query("network == @network").itertuples():
        setting = f"{removed(r.sparsity)} of {'MACs' if r.budget == 'macs' else 'parameters'}"
        setting += f", {r.blocking}" if r.blocking != "none" else ""
        setting += ", multiples of 8" if r.round_to == 8 else ", as pruned"
        setting += ", measured" if r.break_even == "measured" else ""
        rows.append(
            [
                setting,
                r.threads,
                r.batch,
                f"{r.macs_ratio:.2f}",
                f"{r.amdahl_bound:.2f}",
                f"{r.speedup:.2f}",
                f"{100 * r.of_macs_ratio:.0f} %",
                r.mode,
            ]
        )
    return markdown(
        ["setting", "threads", "batch", "MAC ratio", "Amdahl bound", "times faster", "share of the ratio", "fastest mode"], rows
    )


def speed_layers() -> str:
    rows = []
    for (network, layer), part in read("speed_layers").groupby(["network", "layer"], sort=False):
        first, faster = part.iloc[0], part[part["speedup"] > 1]
        share = (part["speedup"] / part["macs_ratio"]).median()
        most = faster["rank"].max() if len(faster) else 0
        rows.append(
            [f"{network}, {layer}", f"{first['shape']}, {first['input']}", first["params_break_even"], most, f"{100 * share:.0f} %"]
        )
    return markdown(["network, layer", "matrix, input", "smaller up to rank", "faster up to rank", "median share of the MAC ratio"], rows)


def speed_batch() -> str:
    wide = read("speed_batch").pivot_table(index="what", columns="batch", values="speedup", sort=False)
    return markdown(["batch", *wide], [[name, *(f"{v:.2f}" if v == v else "" for v in row)] for name, row in zip(wide.index, wide.values)])


def speed_sizes() -> str:
    rows = [
        [removed(r.sparsity), f"{r.params_total:,}", f"{r.bytes:,}", f"{100 * r.params_share:.2f} %", f"{100 * r.bytes_share:.2f} %"]
        for r in read("speed_sizes").itertuples()
    ]
    return markdown(["parameters removed", "parameters", "bytes", "share of parameters", "share of bytes"], rows)


def overview() -> str:
    """README: accuracy of output_aware with nothing trained, size of the file, times faster."""
    accuracy = read("no_retraining").query("method == 'output_aware' and blocking == 'none' and calibration_images == 12000")
    sizes = read("speed_sizes").set_index("sparsity")["bytes"]
    summary = read("speed_summary").query("network == 'vgg16' and budget == 'params' and blocking == 'none'")
    dense = f"{100 * accuracy['accuracy_dense'].iloc[0]:.2f}"
    rows = [["0 % (dense)", dense, f"{sizes[0] / 1e6:.1f} MB", "1", "1", "1"]]
    for share in (0.5, 0.8, 0.9, 0.95, 0.98):
        part = summary[summary["sparsity"] == share]
        fastest = [part[(part["threads"] == t) & (part["batch"] == b)]["speedup"].max() for t, b in ((1, 64), (2, 64), (1, 1))]
        size = f"{sizes[share] / 1e6:.1f} MB" if share in sizes.index else ""
        cells = ["" if pd.isna(value) else f"{value:.2f}" for value in fastest]
        rows.append([removed(share), percent(accuracy[accuracy["sparsity"] == share]["accuracy_before_recovery"]), size, *cells])
    header = ["parameters removed", "accuracy (%), nothing trained", "file", "times faster: 1 thread, batch 64", "2 threads, batch 64"]
    return markdown([*header, "1 thread, batch 1"], rows)


def _bias() -> tuple[pd.DataFrame, pd.DataFrame]:
    return read_table(RESULTS / "simplicity_bias.csv"), read_table(RESULTS / "simplicity_bias_measures.csv")


TABLES: dict[str, Callable[[], str]] = {
    "overview": overview,
    "figure3_batchnorm": lambda: figure3("batchnorm"), "figure3_no_recovery": lambda: figure3("none"), "figure3_collapse": figure3_collapse,
    "figure3_blocks": figure3_blocks, "figure3_spearman": figure3_spearman, "figure3_k": figure3_k, "alds_authors": alds_authors,
    "no_retraining": lambda: no_retraining("no_retraining"), "no_retraining_resnet20": lambda: no_retraining("no_retraining_resnet20"),
    "ablation": ablation, "two_sided": two_sided, "retraining": retraining,
    "figure1": lambda: figure1_markdown(figure1_table(read_table(RESULTS / "figure1.csv"))),
    "figure2_small": lambda: figure2_markdown(figure2_table(read_table(RESULTS / "figure2_small.csv"))),
    "simplicity_bias": lambda: simplicity_markdown(_bias()[0]), "simplicity_bias_pruned": lambda: pruned_markdown(*_bias()),
    "scoring_speed": scoring_speed, "scoring_quality": scoring_quality, "scoring_correlation": scoring_correlation,
    "scoring_images": scoring_images, "scoring_outputs": scoring_outputs, "scoring_fewer": scoring_fewer,
    "speed_vgg16": lambda: speed("vgg16"), "speed_resnet18": lambda: speed("resnet18"), "speed_layers": speed_layers,
    "speed_batch": speed_batch, "speed_sizes": speed_sizes,
}  # fmt: skip


def filled(text: str) -> str:
    """The text with every table between markers written anew."""
    return MARKED.sub(lambda match: f"{match[1]}\n{TABLES[match[2]]().strip()}\n\n{match[3]}", text)


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs/results").glob("*.md"))]


if __name__ == "__main__":
    for page in pages():
        write_text(page, filled(page.read_text(encoding="utf-8")))
