"""The tables of docs/results/at_initialisation.md, and what was found."""

# ruff: noqa: E501  (sentences that become lines of pages)

from __future__ import annotations

from layout import bullets, markdown, paragraph, percent, read, removed, said


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


def at_initialisation_said() -> str:
    held = 100 * read("at_initialisation").set_index(["dataset", "sparsity", "scorer", "mask", "seed"])["accuracy"].sort_index()

    def gain(*key: object) -> float:
        return (held[(*key, "scored")] - held[(*key, "shuffled")]).mean()

    published = {scorer: held["cifar10", 0.98, scorer, "scored"].mean() for scorer in ("grasp", "snip", "random")}
    return bullets(
        f"**On MNIST which weights stay matters, a little**: SNIP's mask is {said(gain('mnist', share, 'snip') for share in (0.95, 0.98))} points better than its shuffled one with 95 and 98 % "
        "of the weights removed, ahead in each of three seeds.",
        f"**On CIFAR-10 it depends on the score**: of a slim VGG16 with 98 % removed SNIP's mask is {gain('cifar10', 0.98, 'snip'):.0f} points better than shuffled, GraSP's "
        f"{-gain('cifar10', 0.98, 'grasp'):.0f} points worse: what GraSP finds is how many weights each layer needs, as Frankle et al. (ICLR 2021) report. One seed.",
        f"**The order there is the published one** (Wang et al., ICLR 2020): GraSP {published['grasp']:.1f} %, SNIP {published['snip']:.1f} %, a random mask {published['random']:.1f} %. Magnitude at "
        "initialisation empties a layer.",
    )


def iterative_said() -> str:
    table = read("iterative")
    dense = 100 * table.loc[table["round"] == 0, "accuracy"].mean()
    held = 100 * table[table["round"] > 0].pivot_table(index="round", columns=["scorer", "selection"], values="accuracy")
    apart, last = (held.max(axis=1) - held.min(axis=1)), held.loc[20]
    return paragraph(
        f"Down to a tenth of the weights all three are within {(dense - held.loc[:10].min(axis=1)).max():.1f} points of the dense network ({dense:.2f} %), and until round 18 within "
        f"{apart.loc[:18].max():.1f} of each other. After the last round uniform is {last['magnitude', 'global'] - last['magnitude', 'uniform']:.1f} points below global magnitude, and LAMP "
        f"{last['lamp', 'global'] - last['magnitude', 'global']:.1f} above it.",
    )
