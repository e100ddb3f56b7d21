"""The tables of docs/results/{scoring,speed}.md, and the one of README.md."""

from __future__ import annotations

import pandas as pd
from layout import RESULTS, markdown, paragraph, percent, read, removed

SHARE_GOALS = {0.8: "90 %", 0.9: "90 %", 0.95: "85 %"}  # of the MAC ratio, with all forms, by the share of parameters removed


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
    table = read("speed_batch")
    wide = table.pivot_table(index="what", columns="batch", values="speedup", sort=False)
    wide.loc["MAC ratio"] = table.groupby("batch")["macs_ratio"].first()
    return markdown(["batch", *wide], [[name, *(f"{v:.2f}" if v == v else "" for v in row)] for name, row in zip(wide.index, wide.values)])


def speed_sizes() -> str:
    rows = [
        [removed(r.sparsity), f"{r.params_total:,}", f"{r.bytes:,}", f"{100 * r.params_share:.2f} %", f"{100 * r.bytes_share:.2f} %"]
        for r in read("speed_sizes").itertuples()
    ]
    return markdown(["parameters removed", "parameters", "bytes", "share of parameters", "share of bytes"], rows)


def speed_forms() -> str:
    """Of both sets of forms the faster of as pruned and rounded, beside the goals; only the header where nothing was timed yet."""
    header = ["parameters removed", "threads", "batch"]
    for name in ("matrices", "`auto`"):
        header += [f"{name}: MAC ratio", "Amdahl bound", "times faster", "share of the ratio"]
    rows = []
    if (RESULTS / "speed_forms_summary.csv").exists():
        for key, part in read("speed_forms_summary").groupby(["sparsity", "threads", "batch"]):
            cells: list[object] = [removed(key[0]), *key[1:]]
            for forms in ("matrix", "auto"):
                fastest = part[part["forms"] == forms].nlargest(1, "speedup").iloc[0]
                cells += [f"{fastest[name]:.2f}" for name in ("macs_ratio", "amdahl_bound", "speedup")]
                cells.append(f"{100 * fastest['of_macs_ratio']:.0f} %")
            rows.append([*cells, SHARE_GOALS.get(key[0], ""), f"{fastest['mode']}, {_ranks(fastest['round_to'])}"])
    return markdown([*header, "goal", "`auto`: fastest mode, ranks"], rows)


def _ranks(round_to: int) -> str:
    return "as pruned" if round_to == 1 else f"multiples of {round_to}"


def speed_forms_sizes() -> str:
    rows = [
        [
            removed(r.sparsity), f"{r.params_total:,}", f"{r.bytes_of_params:,}", f"{r.bytes:,}",
            f"{100 * (r.bytes_over_params - 1):.2f} %", f"{100 * r.params_share:.2f} %", f"{100 * r.bytes_share:.2f} %",
        ]
        for r in read("speed_forms_sizes").itertuples()
    ]  # fmt: skip
    header = ["parameters removed", "parameters", "four bytes of each", "bytes of the file", "more than these", "share of parameters"]
    return markdown([*header, "share of bytes"], rows)


SHOWN = (0.9, 0.95, 0.98)  # in the README
RIVALS = ("balf", "alds", "svd_energy")  # beside ours there
OURS = "output_aware, every form"


def rivals_speed() -> pd.Series:
    """The fastest dense network's time over the fastest compressed one's, by threads, batch size, method and sparsity."""
    fastest = read("speed_rivals").groupby(["threads", "batch", "method", "sparsity"])["ms"].min()
    dense = fastest.xs("dense", level="method").droplevel("sparsity")
    return dense / fastest.drop("dense", level="method")


def overview() -> str:
    """README: accuracy with nothing trained and times faster beside rivals, and the size of the file."""
    table, forms = read("no_retraining"), read("forms").query("model == 'vgg16'")
    matrices = table.query("method == 'output_aware' and blocking == 'none' and calibration_images == 12000")
    columns = {
        OURS: (forms, "accuracy"), "output_aware, matrices alone": (matrices, "accuracy_before_recovery"),
        **{name: (table[(table["method"] == name) & (table["compensation"] == "none")], "accuracy") for name in RIVALS},
    }  # fmt: skip
    speed = rivals_speed()[1, 64]
    rows = [["dense", *[f"{100 * matrices['accuracy_dense'].iloc[0]:.2f}"] * len(SHOWN)]]
    for name, (part, column) in columns.items():
        found = [part.loc[part["sparsity"] == share, column] for share in SHOWN]
        times = ["" if 100 * values.mean() <= 10 else f", {speed[name, share]:.1f} x" for values, share in zip(found, SHOWN, strict=True)]
        said_of = name.replace("output_aware", "`output_aware`") if "," in name else f"`{name}`"
        rows.append([said_of, *(f"{percent(values)}{time}" if len(values) else "" for values, time in zip(found, times, strict=True))])
    sizes = read("speed_forms_sizes").set_index("sparsity")["bytes"]
    rows.append([f"the file, every form ({sizes[0] / 1e6:.1f} MB dense)", *(f"{sizes[share] / 1e6:.1f} MB" for share in SHOWN)])
    told = markdown(["VGG16 on CIFAR-10: accuracy (%), times faster", *(f"{removed(share)} removed" for share in SHOWN)], rows)
    ours, rival = (100 * columns[name][0].groupby("sparsity")[columns[name][1]].mean() for name in (OURS, "balf"))
    mine, theirs = f"{ours[0.98]:.2f} % and {speed[OURS, 0.98]:.1f} x", f"{rival[0.9]:.2f} % and {speed['balf', 0.9]:.1f} x"
    return told + "\n" + paragraph(
        "At equal parameters `balf` and `alds` remove more multiply-accumulates, and `balf` is the faster network; at equal accuracy ours",
        f"is: {mine} with 98 % removed, where `balf` has {theirs} with 90 %.",
    )  # fmt: skip


def speed_rivals() -> str:
    """One row per setting and method: times faster than dense, and the ratio of multiply-accumulates."""
    table, speed = read("speed_rivals").query("method not in ['dense', 'svd_energy']"), rivals_speed()
    ratios = table.groupby(["method", "sparsity"])["macs_ratio"].first()
    rows = []
    for (threads, batch, method), _ in table.groupby(["threads", "batch", "method"], sort=False):
        cells = [f"{speed[threads, batch, method, share]:.2f} ({ratios[method, share]:.2f})" for share in SHOWN]
        rows.append([threads, batch, method, *cells])
    return markdown(["threads", "batch", "method", *(f"{removed(share)} removed" for share in SHOWN)], rows)


def waiting() -> str:
    """How often the work of experiments/waiting.py is done in a second."""
    rows = [[r.busy_loops, r.threads, r.waiting, r.small_per_second, r.large_per_second] for r in read("waiting").itertuples()]
    return markdown(["busy loops beside it", "threads", "waiting", "small operations (1/s)", "a large convolution (1/s)"], rows)
