"""The tables of docs/results/simplicity_bias.md on networks that are trained until their loss stalls."""

# ruff: noqa: E501  (sentences)

from __future__ import annotations

import pandas as pd
from claim_tables import NEAR, claim_rows
from layout import RESULTS, markdown, paragraph, said

from lrp.results.tables import read_table

DEPTHS, SHARES = (1, 8), (0.7, 0.8, 0.9, 0.95)
CURVES = {"none": "accuracy_pruned", "least squares": "accuracy_compensated"}  # by the compensation


def _read() -> tuple[pd.DataFrame, pd.DataFrame]:
    return read_table(RESULTS / "simplicity_bias_settled.csv"), read_table(RESULTS / "simplicity_bias_settled_measures.csv")


def settled() -> str:
    """One row per network and depth."""
    rows = []
    for (network, depth), part in _read()[0].groupby(["network", "depth"], sort=False):
        ranks = [f"{part[f'{what}_exp_{when}'].mean():.1f}" for what in ("layers", "gram") for when in ("initial", "trained")]
        rates, epochs = (" ".join(f"{value:g}" for value in part[name]) for name in ("rate", "epochs_trained"))
        accuracy = f"{100 * part['accuracy'].mean():.1f} ± {100 * part['accuracy'].std():.1f}"
        rows.append([network, depth, rates, epochs, f"{part['loss'].mean():.2f}", accuracy, *ranks])
    head = [
        "network",
        "depth",
        "rates",
        "epochs",
        "loss",
        "accuracy",
        "layers, initial",
        "layers, trained",
        "Gram matrix, initial",
        "Gram matrix, trained",
    ]
    return markdown(head, rows)


def settled_said() -> str:
    """Where the settings themselves were the limit."""
    table = _read()[0]
    rates = [float(rate) for rate in table["rates"].iloc[0].split()]
    least, most = (int((table["rate"] == rate).sum()) for rate in (min(rates), max(rates)))
    capped = table[table["epochs_trained"] == table["epochs"]].groupby(["network", "depth"], sort=False).size()
    named = ", ".join(f"{count} of {network} at depth {depth}" for (network, depth), count in capped.items())
    return paragraph(
        f"Of {len(table)} networks {capped.sum()} ended with the last epoch rather than with a stall ({named}).",
        f"{least} chose the lowest of the rates, {most} the highest.",
    )


def settled_pruned() -> str:
    """One row per network, depth and compensation; mean and standard deviation over seeds."""
    measures = _read()[1]
    rows = []
    for network in measures["network"].unique():
        for depth in DEPTHS:
            for compensation, name in CURVES.items():
                part = measures[(measures["measure"] == name) & (measures["network"] == network) & (measures["depth"] == depth)]
                at = 100 * part.groupby("index")["value"].agg(["mean", "std"])
                rows.append([network, depth, compensation, *(f"{mean:.1f} ± {spread:.1f}" for mean, spread in at.to_numpy())])
    shares = sorted(measures.loc[measures["measure"] == "accuracy_pruned", "index"].unique())
    return markdown(["network", "depth", "compensation", *(f"{100 * share:g} %" for share in shares)], rows)


def settled_claims() -> str:
    """The claims again, the same rules."""
    table, measures = _read()
    means, networks = table.groupby(["network", "depth"]).mean(numeric_only=True), list(table["network"].unique())
    own = measures[(measures["network"] == "linear") & (measures["part"] == "network") & (measures["measure"] == "effective_rank_entropy")]
    ranks = own.groupby(["depth", "step"])["value"].mean()

    def ends(column: str) -> str:
        return ", ".join(
            f"{network} {' to '.join(f'{means.loc[(network, depth), column]:.1f}' for depth in DEPTHS)}" for network in networks
        )

    def less(column: str) -> list[bool]:
        return [means.loc[(network, 8), column] < 0.95 * means.loc[(network, 1), column] for network in networks]

    def gained(name: str) -> dict[str, list[float]]:
        kept = 100 * measures[measures["measure"] == name].groupby(["network", "depth", "index"])["value"].mean()
        return {network: [kept[network, 8, share] - kept[network, 1, share] for share in SHARES] for network in networks}

    kept = [
        (
            f"The collapsed network keeps more at equal sparsity{'' if compensation == 'none' else f', with {compensation}'}",
            f"d = 8 less d = 1 at 70, 80, 90 and 95 %: {'; '.join(f'{n} {said(gained(name)[n])}' for n in networks)} points",
            f"more than {NEAR:g} point above d = 1 at d = 8, {len(networks)} networks, four sparsities",
            [value > NEAR for values in gained(name).values() for value in values],
        )
        for compensation, name in CURVES.items()
    ]
    moved = "; ".join(f"{found.iloc[0]:.2f} to {found.iloc[-1]:.2f} at d = {depth}" for depth, found in ranks.groupby("depth"))
    return claim_rows([
        (
            "Products of more matrices have effective matrices of lower rank, before and after training",
            f"d = 1 to 8 at the start: {ends('layers_exp_initial')}; after training: {ends('layers_exp_trained')}",
            f"lower by a twentieth at d = 8 than at 1, {len(networks)} networks, before and after", less("layers_exp_initial") + less("layers_exp_trained"),
        ),
        (
            "The embedding's Gram matrix has lower rank with more matrices, at initialisation", ends("gram_exp_initial"),
            f"lower by a twentieth, {len(networks)} networks", less("gram_exp_initial"),
        ),
        ("... and after training", ends("gram_exp_trained"), f"lower by a twentieth, {len(networks)} networks", less("gram_exp_trained")),
        (
            "Equation 1: the effective matrix loses rank during SGD", f"entropy of the linear network's end-to-end matrix: {moved}",
            "lower after training than before, at each depth", [found.iloc[-1] < found.iloc[0] for _, found in ranks.groupby("depth")],
        ),
        *kept,
    ])  # fmt: skip
