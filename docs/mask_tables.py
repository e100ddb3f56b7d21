"""The tables of docs/results/at_initialisation.md."""

from __future__ import annotations

from layout import markdown, percent, read, removed


def at_initialisation() -> str:
    """One row per network, share removed and scorer: test accuracy with its mask, and with the mask shuffled inside each layer."""
    table, rows = read("at_initialisation"), []
    for (dataset, network, sparsity), part in table.groupby(["dataset", "network", "sparsity"], sort=False):
        for scorer, found in part.groupby("scorer", sort=False):
            held = {mask: percent(each["accuracy"]) for mask, each in found.groupby("mask")}
            both = found.pivot(index="seed", columns="mask", values="accuracy")
            gain = percent(both["scored"] - both["shuffled"]) if {"scored", "shuffled"} <= set(both) else ""
            masked = held.get("scored", held.get("dense", ""))
            setting = [f"{network}, {dataset}", removed(float(str(sparsity))), scorer, found["seed"].nunique()]
            rows.append([*setting, masked, held.get("shuffled", ""), gain])
    return markdown(["network", "removed", "scorer", "seeds", "accuracy (%)", "mask shuffled", "difference"], rows)


def at_initialisation_layers() -> str:
    """One row per scorer and share removed: the share of each layer of LeNet-300-100 that is kept, mean over seeds."""
    table, rows = read("at_initialisation_layers"), []
    table = table[table["mask"] == "scored"]
    layers = [*dict.fromkeys(table["layer"])]
    for (sparsity, scorer), part in table.groupby(["sparsity", "scorer"], sort=False):
        kept = part.groupby("layer")["kept"].mean() / part.groupby("layer")["weights"].mean()
        rows.append([removed(float(str(sparsity))), scorer, *(f"{100 * kept[layer]:.1f} %" for layer in layers)])
    return markdown(["removed", "scorer", *(f"kept of {layer}" for layer in layers)], rows)


NAMES = {
    ("lamp", "global"): "LAMP", ("magnitude", "global"): "global magnitude", ("magnitude", "uniform"): "uniform",
    ("magnitude", "uniform_plus"): "uniform+", ("magnitude", "erk"): "ERK",
}  # fmt: skip
SHOWN = (4, 8, 12, 14, 16, 18, 20)  # rounds


def iterative() -> str:
    """One row per allocation: test accuracy after some of the rounds."""
    table, rows = read("iterative"), []
    rounds = [number for number in SHOWN if number in set(table["round"])]
    pruned = table[table["round"] > 0]
    for key, part in pruned.groupby(["scorer", "selection"], sort=False):
        cells = [percent(part[part["round"] == number]["accuracy"]) if number in set(part["round"]) else "" for number in rounds]
        rows.append([NAMES[key], part["seed"].nunique(), *cells])
    left = {number: 1 - pruned[pruned["round"] == number]["sparsity_params"].min() for number in rounds}
    return markdown(["allocation", "seeds", *(f"{100 * left[number]:.3g} % left" for number in rounds)], rows)
