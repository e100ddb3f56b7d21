"""The tables of docs/results/{figure3,no_retraining,retraining}.md."""

from __future__ import annotations

import pandas as pd
from layout import markdown, percent, read, removed


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
    """One row for each k: accuracies are means and deviations over calibration seeds."""
    rows = [
        [
            k,
            part["blocks"].iloc[0],
            f"{part['components'].iloc[0]:,}",
            *(percent(part[name], 1) for name in ("accuracy_before_recovery", "accuracy")),
        ]
        for k, part in read("figure3_k").groupby("blocking_k")
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
            rows.append([setting + label, _dense(table), *(found.get(share, "") for share in grid)])
    return markdown(["removed", "nothing", *map(removed, grid)], rows)


def _dense(table: pd.DataFrame) -> str:
    return f"{100 * table['accuracy_dense'].iloc[0]:.2f}"


def forms(name: str) -> str:
    """One row per sparsity: the networks of several calibration seeds, beside ``output_aware`` with matrices alone."""
    table, before = read(name), read(name.replace("forms", "no_retraining"))
    before = before[(before["method"] == "output_aware") & before["blocking"].eq("none") & before["compensation"].eq("least_squares")]
    before = before[before["calibration_images"].isin([4000, 12000]) & before["exclude"].isna()]
    rows = [["nothing", _dense(table), _dense(table), "0.0", "", ""]]
    for share, part in table.groupby("sparsity"):
        old = before[before["sparsity"] == share]["accuracy_before_recovery"]
        seconds = part[["seconds_statistics", "seconds_score", "seconds_compensate"]].median().sum()
        rows.append([
            removed(share), percent(part["accuracy"]), percent(old) if len(old) else "", f"{100 * part['sparsity_macs'].mean():.1f}",
            len(part), f"{seconds:.0f}",
        ])  # fmt: skip
    header = ["parameters removed", "accuracy (%)", "matrices alone", "MACs removed (%)", "seeds", "seconds"]
    return markdown(header, rows)


def form_rivals() -> str:
    """One row per rival, without and with batch norm re-estimated."""
    table, rows = read("forms_rivals"), []
    grid = sorted(table["sparsity"].unique())
    for method, part in table.groupby("method"):
        for column, label in (("accuracy_before_recovery", ""), ("accuracy", ", batch norm re-estimated")):
            found = part.set_index("sparsity")[column]
            rows.append([f"`{method}`{label}", _dense(table), *(f"{100 * found[share]:.2f}" for share in grid)])
    return markdown(["removed", "nothing", *map(removed, grid)], rows)


def form_sets() -> str:
    """One row per network, sparsity and set of forms, on validation images."""
    rows = [
        [r.model, removed(r.sparsity), f"`{r.forms}`", f"{r.divergence:.4f}", f"{100 * r.accuracy:.2f}", f"{100 * r.sparsity_macs:.1f}"]
        for r in read("form_sets").itertuples()
    ]
    return markdown(["network", "parameters removed", "forms", "divergence", "accuracy (%)", "MACs removed (%)"], rows)


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


def form_search() -> str:
    """One row per network and sparsity: the divergence of every trial, the best one marked, beside that of what was set by hand."""
    table = read("form_search").fillna({"base": ""})
    hand = table["base"].str.contains("scorer.depth")
    columns = {
        "logits": "estimator.output=logits", **{f"T = {t}": f"estimator.temperature={t}.0" for t in (1, 2, 4, 8)},
        "depth 0.5": "scorer.depth=0.5", "depth 1": "scorer.depth=1.0",
        "floor 0.005": "scorer.floor=0.005", "floor 0.1": "scorer.floor=0.1",
    }  # fmt: skip
    rows = []
    for (network, sparsity), part in table[~hand].groupby(["network", "sparsity"], sort=False):
        cells = {}
        for row in part.itertuples():
            last = row.set.split()[-1] if row.set != "as set" else _begun(row.base)
            name = next(name for name, word in columns.items() if word == last)
            cells[name] = f"**{row.divergence:.4f}**" if row.best else f"{row.divergence:.4f}"
        by_hand = table[hand & table["network"].eq(network) & table["sparsity"].eq(sparsity) & table["set"].eq("as set")]["divergence"]
        rows.append([network, removed(sparsity), *(cells.get(name, "") for name in columns), *(f"{value:.4f}" for value in by_hand[:1])])
    return markdown(["network", "removed", *columns, "by hand"], [[*row, *[""] * (12 - len(row))] for row in rows])


def _begun(base: str) -> str:
    """What a search began with, as the last word of a trial."""
    words = dict(word.split("=") for word in base.split())
    temperature = float(words.get("estimator.temperature", 1))
    return f"estimator.temperature={temperature}" if words.get("estimator.output") == "hellinger" else "estimator.output=logits"


KEPT = 0.05  # of the longest: with less a stage was not computed but found, as another variant had left it


def form_ablation() -> str:
    """One row per network and sparsity; one thing changed at a time."""
    rows = [
        [
            r.model,
            removed(r.sparsity),
            r.changed,
            f"{r.divergence:.4f}",
            f"{100 * r.accuracy:.2f}",
            f"{100 * r.sparsity_macs:.1f}",
            f"{r.seconds_compensate:.0f}",
        ]  # fmt: skip
        for r in read("form_ablation").sort_values(["model", "sparsity"], kind="stable").itertuples()
    ]
    header = ["network", "removed", "changed", "divergence", "accuracy (%)", "MACs removed (%)", "seconds of the fit"]
    return markdown(header, rows)


def form_stages() -> str:
    """Seconds of each stage with everything; of stages that several variants share the least of those that did not find it kept."""
    table, rows = read("form_ablation"), []
    for (model, sparsity), part in table.groupby(["model", "sparsity"]):
        whole = part[part["changed"] == "everything"].iloc[0]
        found = [part[f"seconds_{name}"].dropna() for name in ("statistics", "decompose", "score", "select")]
        seconds = [*(each[each > KEPT * each.max()].min() for each in found), whole["seconds_compensate"]]
        rows.append([model, removed(sparsity), whole["images"], *(f"{value:.2g}" if value < 10 else f"{value:.0f}" for value in seconds)])
    return markdown(["network", "removed", "images", "statistics", "decomposition", "scores", "choice", "fit"], rows)


def form_loss() -> str:
    """One row per network and prediction: rank correlations with the true change."""
    rows = [
        [r.model, r.prediction, r.rows, *(f"{v:.3f}" for v in (r.spearman, r.log_pearson, r.spearman_in_layer, r.spearman_of_forms))]
        for r in read("form_loss_summary").itertuples()
    ]
    header = [
        "network",
        "prediction",
        "cases",
        "all (Spearman)",
        "all, of logarithms (Pearson)",
        "inside a layer",
        "between forms of one size",
    ]
    return markdown(header, rows)


def form_finetuned() -> str:
    """One row per training: how it began, how many epochs it took, test accuracy before and after."""
    dense = read("forms")["accuracy_dense"].iloc[0]
    rows = [
        [
            f"{100 * r.sparsity_params:.1f}, {100 * r.sparsity_macs:.1f}",
            r.start,
            r.epochs,
            f"{r.lr:g}, {r.weight_decay:g}, {r.distill:g}",
            "no" if r.hold_out else "yes",
            r.precision,
            f"{100 * r.before:.2f}",
            f"{100 * r.after:.2f}",
            f"{100 * (r.after - dense):+.2f}",
        ]  # fmt: skip
        for r in read("form_finetuned").itertuples()
    ]
    return markdown(
        [
            "parameters, MACs removed (%)",
            "start",
            "epochs",
            "rate, decay, teacher",
            "on validation images",
            "precision",
            "before",
            "after",
            "from dense",
        ],
        rows,
    )


def forms_hand() -> str:
    """One row per sparsity and setting that was not chosen by a search for that sparsity, beside the one that was: VGG16, one seed."""
    table, found = read("forms_hand"), read("forms").query("calibration_seed == 0").set_index("sparsity")["accuracy"]
    rows = []
    for row in table.sort_values(["sparsity", "accuracy"]).itertuples():
        words = _options(row.options)
        told = f"T = {float(words['estimator.temperature']):g}, depth {float(words.get('scorer.depth', 0)):g}"
        rows.append(
            [removed(row.sparsity), told, f"{100 * row.accuracy:.2f}", f"{100 * row.sparsity_macs:.1f}", f"{100 * found[row.sparsity]:.2f}"]
        )
    return markdown(["parameters removed", "setting", "accuracy (%)", "MACs removed (%)", "the setting above"], rows)
