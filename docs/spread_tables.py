"""The tables of docs/results/figure3.md on several networks, from what experiments/network_claims.py wrote."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd
from layout import between, markdown, paragraph, percent, read, removed, said
from network_claims import verdicts

KEYS = ["blocking", "scorer", "compensation"]
HARDLY = 25.0  # per cent of ten classes
SCORERS = ("perturbation", "variance", "relative_error", "magnitude")


def tables(name: str) -> dict[str, Callable[[], str]]:
    """The tables of the networks whose CSV files' names begin so."""
    return {
        name: partial(networks, name), f"{name}_claims": partial(claims, name), f"{name}_numbers": partial(numbers, name),
        f"{name}_said": partial(networks_said, name),
    }  # fmt: skip


def _rows(name: str) -> pd.DataFrame:
    return read(name).fillna({"blocking": "none", "compensation": "none"})


def networks(name: str) -> str:
    """One row per blocking and scorer, and with compensation: accuracy, batch norm re-estimated; mean and spread of all."""
    table = _rows(name)
    shares = sorted(table["sparsity"].unique())
    rows = []
    for key in sorted(table[KEYS].drop_duplicates().itertuples(index=False, name=None), key=_place):
        held = table[(table[KEYS] == list(key)).all(axis=1)]
        cells = [percent(held.loc[held["sparsity"] == share, "accuracy"] / 100, 1) for share in shares if share > 0]
        rows.append([*key[:2], "yes" if key[2] != "none" else "no", *cells])
    return markdown(["blocking", "scorer", "compensated", *(removed(share) for share in shares if share > 0)], rows)


def _place(key: tuple[str, str, str]) -> tuple[int, int, int]:
    return int(key[2] != "none"), ("none", "alds", "square").index(key[0]), SCORERS.index(key[1])


def claims(name: str) -> str:
    """One row per claim: its rule, and in how many checks it holds."""
    rows = verdicts(read(f"{name}_claims"))[["claim", "rule", "verdict"]].to_numpy()
    return markdown(["the paper", "it holds where", "verdict"], rows)


def numbers(name: str) -> str:
    """One row per number that a claim was checked by."""
    table = read(f"{name}_claims")
    cells = [
        [r.claim, r.number, f"{r.mean:.3g}" if pd.isna(r.std) else f"{r.mean:.3g} ± {r.std:.2g}", f"{r.held} of {r.of}"]
        for r in table.itertuples()
    ]
    return markdown(["claim", "number", "mean and spread", "holds in"], cells)


def networks_said(name: str) -> str:
    """How many networks and seeds there are, how good the networks are, and what is left of them where the paper says that blocks help."""
    table = _rows(name)
    dense = table[table["sparsity"] == 0].groupby("network")["accuracy_before_recovery"].first()
    seeds = table.groupby("network")["calibration_seed"].nunique()
    late = table[table["sparsity"] >= 0.95]["accuracy"].max()
    seed = f"{between(seeds)} calibration seed{'s' * bool(seeds.max() > 1)}"
    held = f"One network, with {seed}; dense it is at" if len(dense) == 1 else f"{len(dense)} networks, each with {seed}; dense they are at"
    doubt = ", so that what is said of those sparsities is said of networks that hardly tell the classes apart" if late < HARDLY else ""
    return paragraph(
        held,
        f"{said(sorted(dense, reverse=True))} % of the test images. From 95 % removed on nothing is above",
        f"{late:.1f} %{doubt}.",
    )
