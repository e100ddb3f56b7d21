"""The paper's claims about figure 3 on several networks and calibration seeds: in how many each holds, and the spread of its numbers.

    python -m lrp.run -m experiment=figure3 estimator=first_order model.width=0.5 model.checkpoint=$NET0,$NET1,$NET2 \\
        calibration.seed=0,1,2 dataset.path=$DATA threads=1 hydra.sweep.dir=outputs/networks
    python experiments/network_claims.py outputs/networks --out experiments/results

Reads results.csv, layers.csv and scores.parquet of every job below the folders. A network is known by its checkpoint, or by the seed that
it was trained with. Each claim has a rule, as in docs/results/figure3.md: it is reproduced where all checks hold in all networks with all
calibration seeds, in part where some do.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from claims import asked, empty_layers

from lrp.files import write_whole

CASE = ["network", "calibration_seed"]
KEYS = [*CASE, "blocking", "scorer", "compensation", "sparsity"]
NEAR, CHANCE = 1.0, 11.0  # points of accuracy that count as no difference; what is not above this learnt nothing of ten classes
LATE, ALIKE = 0.95, (0.9, 0.95)


def rows(table: pd.DataFrame) -> pd.DataFrame:
    """One row per job and sparsity: both accuracies (%), and how many layers are empty."""
    found = []
    for folder, part in table.groupby("folder", sort=False):
        found.append(part.assign(empty=part["sparsity"].map(empty_layers(str(folder))).fillna(0).astype(int)))
    held = pd.concat(found, ignore_index=True).assign(network=lambda each: _network(each))
    for name in ("accuracy", "accuracy_before_recovery"):
        held[name] = (100 * held[name]).round(2)
    return held[[*KEYS, "accuracy", "accuracy_before_recovery", "empty"]].drop_duplicates(KEYS, keep="last").sort_values(KEYS)


def _network(table: pd.DataFrame) -> pd.Series:
    trained = "seed " + table["seed"].astype(str)
    return table["checkpoint_sha256"].str[:12].fillna(trained) if "checkpoint_sha256" in table else trained


def correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of perturbation with the other scores over all components, of each network, calibration seed and blocking."""
    scores = {}
    for folder, part in table.assign(network=_network(table)).groupby("folder", sort=False):
        first = part.iloc[0]
        scores[tuple(first[[*CASE, "blocking", "scorer"]])] = pd.read_parquet(Path(str(folder)) / "scores.parquet")["score"]
    found = []
    for (*case, blocking, scorer), other in scores.items():
        base = scores.get((*case, blocking, "perturbation"))
        if scorer != "perturbation" and base is not None:
            found.append([*case, blocking, scorer, round(base.corr(other, "spearman"), 3)])
    return pd.DataFrame(found, columns=[*CASE, "blocking", "perturbation_with", "over_all"]).drop_duplicates(
        [*CASE, "blocking", "perturbation_with"]
    )


@dataclass(frozen=True)
class Case:
    """One network with one calibration seed.

    Attributes:
        table: Its rows.
        order: Its correlations.
    """

    table: pd.DataFrame
    order: pd.DataFrame

    @property
    def blockings(self) -> list[str]:
        return list(self.table["blocking"].unique())

    def curve(self, blocking: str, scorer: str, what: str, compensation: str = "none") -> pd.Series:
        part = self.table.query("blocking == @blocking and scorer == @scorer and compensation == @compensation")
        return part.set_index("sparsity")[what]

    def correlation(self, blocking: str, scorer: str) -> Iterator[float]:
        yield from self.order.query("blocking == @blocking and perturbation_with == @scorer")["over_all"]


Found = Iterator[tuple[str, float, bool]]  # what a number is, the number, and whether the claim holds by it


def collapse(case: Case) -> Found:
    """Pruning by magnitude collapses layers early: each blocking, a layer is empty at a lower sparsity than with perturbation,
    which is above chance there."""
    for blocking in case.blockings:
        first = [case.curve(blocking, scorer, "empty") for scorer in ("magnitude", "perturbation")]
        if any(curve.empty for curve in first):
            continue
        early, late = (curve.index[curve > 0].min() if (curve > 0).any() else 1.0 for curve in first)
        above = case.curve(blocking, "perturbation", "accuracy").get(early, 0.0)
        yield (
            f"{blocking}: first empty layer, perturbation less magnitude (points of sparsity)",
            100 * (late - early),
            early < late and above > CHANCE,
        )


def blocks(case: Case) -> Found:
    """Blocking helps at 95 % and above: more than a point above no blocking, at each sparsity from 95 % on at which either is
    above chance, with and without batch norm re-estimated."""
    ways = [("accuracy", "none"), ("accuracy_before_recovery", "none"), ("accuracy", "least_squares")]
    for blocking, (what, compensation) in itertools.product([name for name in case.blockings if name != "none"], ways):
        whole, cut = (case.curve(name, "perturbation", what, compensation) for name in ("none", blocking))
        for sparsity in (share for share in cut.index if share >= LATE and share in whole and max(cut[share], whole[share]) > CHANCE):
            how = {"accuracy": "batch norm re-estimated", "accuracy_before_recovery": "as pruning leaves it"}[what]
            told = how if compensation == "none" else "compensated"
            yield (
                f"{blocking} less none at {100 * sparsity:g} %, {told} (points)",
                cut[sparsity] - whole[sparsity],
                cut[sparsity] - whole[sparsity] > NEAR,
            )


def spearman(case: Case) -> Found:
    """Perturbation correlates with relative error, 0.87: within 0.05 of it over all components, each blocking."""
    for blocking in case.blockings:
        for value in case.correlation(blocking, "relative_error"):
            yield f"{blocking}: correlation with relative error", value, abs(value - 0.87) <= 0.05


def variance(case: Case) -> Found:
    """Perturbation and variance select alike: each blocking, a correlation of 0.95 or more, and accuracies within a point
    from 90 to 95 %."""
    for blocking in case.blockings:
        for value in case.correlation(blocking, "variance"):
            yield f"{blocking}: correlation with variance", value, value >= 0.95
        both = [case.curve(blocking, scorer, "accuracy") for scorer in ("perturbation", "variance")]
        gaps = (both[0] - both[1]).loc[lambda gap: (gap.index >= ALIKE[0]) & (gap.index <= ALIKE[1])].abs().dropna()
        if len(gaps):
            yield f"{blocking}: largest gap of accuracy from 90 to 95 % (points)", gaps.max(), gaps.max() <= NEAR


def magnitude(case: Case) -> Found:
    """Perturbation is above magnitude: each blocking, at each sparsity from 90 % on at which either is above chance, batch norm
    re-estimated."""
    for blocking in case.blockings:
        ours, plain = (case.curve(blocking, scorer, "accuracy") for scorer in ("perturbation", "magnitude"))
        for sparsity in (share for share in ours.index if share >= ALIKE[0] and share in plain and max(ours[share], plain[share]) > CHANCE):
            yield (
                f"{blocking}: perturbation less magnitude at {100 * sparsity:g} % (points)",
                ours[sparsity] - plain[sparsity],
                ours[sparsity] > plain[sparsity],
            )


def stated(claim: Callable[[Case], Found]) -> tuple[str, str]:
    """A claim in words, and its rule."""
    name, rule = " ".join(str(claim.__doc__).split()).rstrip(".").split(": ", 1)
    return name, rule


CLAIMS: Sequence[Callable[[Case], Found]] = (collapse, blocks, magnitude, spearman, variance)


def claims(table: pd.DataFrame, order: pd.DataFrame) -> pd.DataFrame:
    """One row per claim and number: its mean and spread over networks and calibration seeds, and in how many the claim holds by it."""
    found = []
    for _, part in table.groupby(CASE, sort=False):
        network, seed = part[CASE].iloc[0]
        case = Case(part, order.query("network == @network and calibration_seed == @seed"))
        for claim in CLAIMS:
            name, rule = stated(claim)
            found += [{"claim": name, "rule": rule, "number": number, "value": value, "holds": held} for number, value, held in claim(case)]
    each = pd.DataFrame(found).groupby(["claim", "rule", "number"], sort=False)
    return each.agg(mean=("value", "mean"), std=("value", "std"), held=("holds", "sum"), of=("holds", "size")).round(3).reset_index()


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """Each claim with its rule, and in how many checks it holds."""
    each = table.groupby(["claim", "rule"], sort=False)[["held", "of"]].sum().reset_index()
    return each.assign(verdict=[verdict(held, of) for held, of in zip(each["held"], each["of"])])


def verdict(held: int, of: int) -> str:
    """What so many checks say that hold, of all."""
    return f"{'reproduced' if held == of else 'in part' if held else 'not reproduced'}, {held} of {of}"


def main() -> None:
    table, out, begin = asked(__doc__, "figure3_networks")
    held, order = rows(table), correlations(table)
    found = claims(held, order)
    print(found.drop(columns=["rule"]).to_string(index=False), verdicts(found).to_string(index=False), sep="\n\n")
    for name, each in (("", held), ("_spearman", order), ("_claims", found)) if out else ():
        write_whole(out / f"{begin}{name}.csv", partial(each.to_csv, index=False))


if __name__ == "__main__":
    main()
