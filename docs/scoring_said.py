"""What docs/results/scoring.md says was found.

What is near, behind or little was judged by a reader; the numbers are computed.
"""

# ruff: noqa: E501  (sentences that become lines of pages)

from __future__ import annotations

from layout import bullets, markdown, paragraph, read, removed, said

CUTS = ("none", "alds", "square")
PAPER = 0.87  # between perturbation and relative error, over all components


def speed() -> str:
    table = read("scoring_speed").query("network == 'vgg16'").set_index("blocking").loc[[*CUTS]]
    of_macs = 100 * table["ratio_first_order"] / table["bound_first_order"]
    return paragraph(
        f"First order is {said(table['ratio_first_order'], 0)} times faster than the naive way on VGG16 (none, alds, square), {said(of_macs, 0)} % of what the",
        "multiply-accumulates alone would give. With square blocks, and in the ResNet-20's thin layers, it does not come nearer: components times positions have to",
        "be written and read, and the products that contract them run slower than the large convolutions that the naive way consists of.",
    )


def quality() -> str:
    table = read("scoring_quality")
    order = table.groupby(["network", "blocking"])["spearman_perturbation"].first()
    apart = (table["accuracy_exact"] - table["accuracy_first_order"]).abs()
    vgg16, at_80 = table["network"] == "vgg16", (table["network"] == "resnet20") & (table["sparsity"] == 0.8)
    return paragraph(
        f"The correlation is at least {order['vgg16'].min():.4f} on VGG16, and {said((order['resnet20', cut] for cut in CUTS), 4)} on the ResNet-20 (none, alds,",
        "square), presumably because in such small layers one component is much of a layer, and the network is not linear over so large a change. What is kept",
        f"differs most where little is kept; accuracies differ by at most {apart[vgg16].max():.1f} points on VGG16, and by {apart[at_80].max():.1f} on the ResNet-20",
        "with 80 % removed, where it has lost half of its own.",
    )


def additive() -> str:
    """One row per share removed, of the runs of docs/results/cited.md: what the scores predict, and what happens."""
    table = read("cited").query("model == 'resnet20' and decomposition == 'svd' and scorer == 'perturbation' and compensation == 'none'")
    table = table[table["estimator"].eq("first_order") & ~table["options"].str.contains("hellinger") & table["perturbation_true"].notna()]
    rows = []
    for share, part in table.groupby("sparsity"):
        cells = part[["perturbation_additive", "perturbation_joint", "perturbation_true"]].iloc[0]
        rows.append([removed(float(str(share))), *(f"{value:.2f}" for value in cells)])
    return markdown(["parameters removed", "sum of the scores", "first-order change of the whole set", "true change"], rows)


def correlation() -> str:
    table = read("scoring_correlation").set_index(["perturbation_with", "blocking"])
    within = table.loc["relative_error"].loc[[*CUTS]]
    return paragraph(
        "Within a layer relative error and singular value are in one order, and there the correlation is higher than the paper's",
        f"{PAPER}: {said(within['within_layers_mean'], 2)} on average (none, alds, square), {within['within_layers_least'].min():.2f} in the lowest layer. Between",
        "layers relative error goes the wrong way or nowhere (last column). Over all components the plain singular value comes nearest,",
        f"{said((table.loc[('magnitude', cut), 'spearman'] for cut in CUTS), 2)}: the more blocks a layer is cut into, the more of the spread is within layers, and",
        "the higher the correlation over all.",
    )


def images() -> str:
    table = read("scoring_images").query("output == 'logits' and scorer == 'perturbation'").set_index("images")["spearman_of_two_sets"]
    return f"With 64 images, the default, the two orders agree to {table[64]:.3f}; 0.999 takes {table[table >= 0.999].index.min()}."


def outputs() -> str:
    table, counts = (
        read("scoring_outputs").set_index(["blocking", "output", "scorer"]),
        read("scoring_images").query("scorer == 'perturbation'"),
    )
    again = counts.set_index(["output", "images"])["spearman_of_two_sets"]

    def both(cut: str, share: str) -> str:
        cells = (table.loc[(cut, output, "perturbation"), f"accuracy_{share}"] for output in ("probabilities", "logits"))
        return " against ".join(f"{value:.1f}" for value in cells) + " %"

    perturbation, variance = (table.xs(scorer, level="scorer").xs("logits", level="output") for scorer in ("perturbation", "variance"))
    shares = ("0.8", "0.9", "0.95")
    apart = max((perturbation[f"accuracy_{share}"] - variance[f"accuracy_{share}"]).abs().max() for share in shares)
    alike = 100 * min(variance[f"overlap_{share}"].min() for share in shares)
    return bullets(
        f"**Logits.** Probabilities need {1024 // 64} times the images for the same agreement: two sets of 1,024 agree to {again['probabilities', 1024]:.3f}, of logits two"
        f" sets of 64 to {again['logits', 64]:.3f}. Presumably a network that is sure of an image hardly moves its probabilities, so that few images carry the score.",
        f"**Probabilities are a little more accurate where little is lost** ({both('none', '0.9')} with 90 % removed, no blocking) and far less where more is"
        f" ({both('none', '0.95')} with 95 %); with alds they are behind at both ({both('alds', '0.9')}, {both('alds', '0.95')}).",
        f"**Perturbation and variance hardly differ**: Spearman's correlation is at least {variance['spearman_with_first'].min():.4f}, at least {alike:.0f} % of what is kept"
        f" is the same, and accuracies are within {apart:.1f} points.",
    )


def fewer() -> str:
    table, times = (
        read("scoring_fewer").fillna({"share_of_evaluations": 0}),
        read("scoring_speed").query("network == 'vgg16' and blocking == 'none'").iloc[0],
    )
    cells = table.set_index(["scored", "share_of_evaluations"])
    shares = ["accuracy_0.8", "accuracy_0.9", "accuracy_0.95"]
    lost = max((cells.loc[("all", 1.0), shares] - cells.loc[("random sample, interpolated", share), shares]).max() for share in (0.5, 0.25))
    first = cells.loc[("first order", 0), ["overlap_0.8", "overlap_0.9", "overlap_0.95"]]
    return paragraph(
        "Scoring only the middle of each spectrum fails in either reading (what lies before it kept first and what lies behind it dropped first; or the score",
        "continued as the squared singular value): the order between layers is decided at the large end of the spectrum, just where nothing was scored. A random",
        f"half or quarter with interpolation costs up to {lost:.1f} points, a tenth collapses at 90 %. Neither is needed: first order takes",
        f"1/{times['seconds_exact'] / times['seconds_first_order']:.0f} of the time of all and keeps at least {100 * first.min():.0f} % of the same components.",
    )
