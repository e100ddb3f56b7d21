"""What the paper leaves open about scores: how many images, which output, which scorer, and whether fewer evaluations do.

    python experiments/scoring_study.py --vgg16 $CHECKPOINT --data $DATA PART...

Parts, each a table in --out:
  images       Spearman of the scores from two disjoint sets of 16 ... 1,024 images (first-order)
  outputs      what logits, probabilities, perturbation and variance select (first-order, --images images)
  correlation  perturbation (exact) with relative error and singular value: over all components, within layers, of the layers
  fewer        the paper's two ideas for fewer evaluations, on exact scores: the middle of each spectrum, and a random sample
               with interpolation
Accuracy is of validation images, batch norm re-estimated. The first table is drawn too.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from scoring_common import Setting, overlap, parser, perturbation, settings, spearman, variance, write_table
from torch import Tensor

from lrp.estimator.exact import ExactEstimator
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.estimator.moments import Moments
from lrp.evidence import Evidence
from lrp.figure.scoring import draw_scoring_images
from lrp.scorer.magnitude import Magnitude
from lrp.scorer.relative_error import RelativeError

SCORES = {"perturbation": perturbation, "variance": variance}
SPARSITIES = (0.8, 0.9, 0.95)
SIZES = (16, 32, 64, 128, 256, 512, 1024)


def images(setting: Setting, args) -> list[dict]:
    x = setting.images(2 * max(SIZES)).to(next(setting.model.parameters()).device)
    rows = []
    for output in ("logits", "probabilities"):
        chunks: list[list[Tensor]] = []  # of every 16 images and block the sums of both moments (2, R, K)
        for batch, D, _ in FirstOrderEstimator(output=output).stream(setting.model, setting.factors, x):
            assert len(batch) % 16 == 0
            for start in range(0, len(batch), 16):
                parts = [part[start : start + 16].double() for part in D]
                chunks.append([torch.stack([part.sum(0).T, part.square().sum(0).T]).float() for part in parts])

        def moments(first: int, count: int, chunks=chunks) -> list[Moments]:
            which = chunks[first // 16 : (first + count) // 16]
            return [Moments(*(sum(part.double() for part in parts) / count)) for parts in zip(*which)]

        largest = moments(0, 2 * max(SIZES))
        for size in SIZES:
            pair = moments(0, size), moments(size, size)
            for name, score in SCORES.items():
                row = {"blocking": setting.blocking, "output": output, "scorer": name, "images": size}
                row["spearman_of_two_sets"] = spearman(score(pair[0]), score(pair[1]))
                row["spearman_with_all"] = spearman(score(pair[0]), score(largest))
                for sparsity in SPARSITIES:
                    row[f"overlap_{sparsity:g}"] = overlap(*(setting.keep(score(each), sparsity) for each in pair))
                rows.append(row)
    return rows


def judged(setting: Setting, base: Sequence[Tensor], scores: Sequence[Tensor]) -> dict[str, float]:
    """At each sparsity the share of what ``base`` keeps that ``scores`` keep as well, and the accuracy with what they keep."""
    row = {}
    for sparsity in SPARSITIES:
        keep = setting.keep(scores, sparsity)
        row[f"overlap_{sparsity:g}"] = overlap(setting.keep(base, sparsity), keep)
        row[f"accuracy_{sparsity:g}"] = setting.accuracy(keep)
    return row


def outputs(setting: Setting, args) -> list[dict]:
    x = setting.images(args.images).to(next(setting.model.parameters()).device)
    scores = {}
    for output in ("logits", "probabilities"):
        moments = setting.moments(FirstOrderEstimator(output=output), x)
        scores |= {(output, name): score(moments) for name, score in SCORES.items()}
    base, rows = scores["logits", "perturbation"], []
    for (output, name), score in scores.items():
        row = {
            "blocking": setting.blocking,
            "output": output,
            "scorer": name,
            "images": args.images,
            "spearman_with_first": spearman(base, score),
        }
        rows.append(row | judged(setting, base, score))
    return rows


def correlation(setting: Setting, args) -> list[dict]:
    base = perturbation(setting.moments(ExactEstimator(), setting.images(_exact_images(setting, args))))
    evidence = Evidence(setting.model, setting.images(1))
    others = {scorer.name: scorer(setting.factors, evidence) for scorer in (RelativeError(), Magnitude())}
    layers = [factor.block.layer for factor in setting.factors]
    rows = []
    for name, other in others.items():
        table = pd.DataFrame(
            {
                "layer": np.repeat(layers, [len(score) for score in base]),
                "a": torch.cat(base).numpy(),
                "b": torch.cat(other).numpy(),
            }  # fmt: skip
        )
        table = table[(table["a"] > 0) & (table["b"] > 0)]  # rank-deficient blocks: logarithms
        logs = table.assign(a=np.log(table["a"]), b=np.log(table["b"]))
        parts = [part for _, part in logs.groupby("layer") if len(part) > 10]
        within = [part["a"].corr(part["b"], "spearman") for part in parts]
        means = logs.groupby("layer")[["a", "b"]].mean()
        last = [part for part in parts if part["layer"].iloc[0] != layers[0]]
        row = {"blocking": setting.blocking, "perturbation_with": name, "components": len(table)}
        row |= {"spearman": table["a"].corr(table["b"], "spearman"), "kendall": table["a"].corr(table["b"], "kendall")}
        row |= {"pearson": table["a"].corr(table["b"]), "pearson_of_logs": logs["a"].corr(logs["b"])}
        row |= {"within_layers_mean": statistics.mean(within), "within_layers_least": min(within), "within_layers_most": max(within)}
        row |= {"without_first_layer": pd.concat(last)[["a", "b"]].corr("spearman").iloc[0, 1]}
        row |= {"layer_means": means["a"].corr(means["b"], "spearman"), "square_of_other_pearson": table["a"].corr(table["b"] ** 2)}
        for group in ("smallest_half", "largest_half"):
            ranks = table["b"].rank(pct=True)
            half = table[ranks <= 0.5] if group == "smallest_half" else table[ranks > 0.5]
            row[f"{group}"] = half["a"].corr(half["b"], "spearman")
        rows.append(row)
    return rows


def middle(exact: Sequence[Tensor], share: float, spectra: Sequence[Tensor]) -> list[Tensor]:
    """Only the middle of each spectrum is scored; what lies before it goes last, what lies behind it first."""
    highest = max(float(score.max()) for score in exact)
    result = []
    for score in exact:
        R = len(score)
        count = max(1, round(share * R))
        start = (R - count) // 2
        order = torch.arange(R, dtype=torch.float64)
        above, below = highest * (2 - order / R), -order / R
        place = torch.arange(R)
        result.append(torch.where(place < start, above, torch.where(place >= start + count, below, score)))
    return result


def middle_extended(exact: Sequence[Tensor], share: float, spectra: Sequence[Tensor]) -> list[Tensor]:
    """Only the middle of each spectrum is scored; beyond it the score goes on in proportion to the squared singular value."""
    result = []
    for score, S in zip(exact, spectra):
        count = max(1, round(share * len(score)))
        start = (len(score) - count) // 2
        nearest = torch.arange(len(score)).clamp(start, start + count - 1)
        result.append(score[nearest] * (S / S[nearest].clamp(min=torch.finfo(S.dtype).tiny)) ** 2)
    return result


def sample(exact: Sequence[Tensor], share: float, spectra: Sequence[Tensor]) -> list[Tensor]:
    """A random sample of each spectrum is scored; between its members the logarithm of the score is interpolated."""
    result, generator = [], torch.Generator().manual_seed(0)
    for score in exact:
        R = len(score)
        which = torch.randperm(R, generator=generator)[: max(2, round(share * R))].sort().values.numpy()
        logs = np.log(score.numpy()[which].clip(min=1e-300))
        result.append(torch.from_numpy(np.exp(np.interp(np.arange(R), which, logs))))
    return result


def fewer(setting: Setting, args) -> list[dict]:
    count = _exact_images(setting, args)
    exact = perturbation(setting.moments(ExactEstimator(), setting.images(count)))
    first = perturbation(setting.moments(FirstOrderEstimator(), setting.images(count)))
    ways: dict[str, Callable] = {
        "middle of the spectra": middle,
        "middle of the spectra, extended": middle_extended,
        "random sample, interpolated": sample,
    }
    spectra = [factor.S for factor in setting.factors]
    tried = [("all", 1.0, exact), ("first order", float("nan"), first)]
    for name, way in ways.items():
        for share in (0.5, 0.25, 0.1):
            tried.append((name, share, way(exact, share, spectra)))
    rows = []
    for name, share, scores in tried:
        row = {
            "blocking": setting.blocking,
            "scored": name,
            "share_of_evaluations": share,
            "images": count,
            "spearman": spearman(exact, scores),
        }
        rows.append(row | judged(setting, exact, scores))
    return rows


def _exact_images(setting: Setting, args) -> int:
    return args.square_images if setting.blocking == "square" else args.images


PARTS = {"correlation": correlation, "outputs": outputs, "fewer": fewer, "images": images}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    options.add_argument("--images", type=int, default=64)
    options.add_argument("--square-images", type=int, default=16, help="images for exact scores with square blocks, which are slow")
    options.add_argument("--blockings", nargs="+", default=["none", "alds", "square"])
    args = options.parse_args()
    unknown = [part for part in args.parts if part not in PARTS]
    if unknown:
        options.error(f"there is no part {unknown[0]}, allowed are {', '.join(PARTS)}")
    for part in args.parts or PARTS:
        rows = []
        file = args.out / f"scoring_{part}.csv"
        for setting in settings(args, {"vgg16": args.vgg16}, args.blockings):
            for row in PARTS[part](setting, args):
                rows.append({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
            table = write_table(rows, file)
        print(f"\n{file}\n\n{table.to_string(index=False)}", flush=True)
        if part == "images":
            draw_scoring_images(table, None, file.with_suffix(""))


if __name__ == "__main__":
    main()
