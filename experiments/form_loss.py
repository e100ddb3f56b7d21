"""Which prediction of what a form loses orders best: several of them beside the true change of the outputs, layer by layer.

    python experiments/form_loss.py --model resnet20 --checkpoint $RESNET --data $DATA --out form_loss.csv
    python experiments/form_loss.py summary --out form_loss.csv

One layer at a time is stored in a form at some ranks, everything else dense, fitted on the calibration images; the truth is the mean
Kullback-Leibler divergence of the softmax outputs from the dense network's on validation images. Predictions:

* sums: the perturbations of what both sides drop, added up (output side of the SVD, input side of the input unfolding);
* noise_to_signal: the same, raised as scorer=noise_to_signal does (all layers alike);
* regression: what the fit leaves, tr(G D C D^T) with D the change of the layer's matrix, from second moments alone;
* joint: E ||J D x||^2, the change of the outputs by the whole D at once, to first order, on the scoring images.

Rows are added to the table as they come. summary: rank correlations (Spearman) of each prediction with the truth, over
everything, inside each layer, and between the forms of one size in a layer; and of the logarithms (Pearson).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from form_sets import arguments, begin, words
from kept_rows import KeptRows
from torch import Tensor, nn

from lrp.batches import Batches
from lrp.compensation.refit import refit
from lrp.config.build import compose_job
from lrp.decomposition.metric import OutputMetric
from lrp.estimator.divergence import divergence
from lrp.files import write_whole
from lrp.form.known import FORMS as KNOWN
from lrp.layer.build import kind_of, replace_layer
from lrp.layer.duplicate import duplicate, measured_copy
from lrp.layer_statistics.positions import columns, outputs
from lrp.layer_statistics.sums import Sums
from lrp.method.forms import _all_inputs, _outputs, _scored
from lrp.scorer.noise_to_signal import NoiseToSignal
from lrp.scorer.perturbation import Perturbation

FORMS = ("matrix", "tucker2", "spatial")
SHARES = (0.05, 0.1, 0.2, 0.35, 0.5)  # of the layer's parameters that are kept
IMAGES, JOINT_IMAGES, RIDGE = 1000, 128, 0.03
PREDICTIONS = ("sums", "noise_to_signal", "regression", "joint")


def sums_of(model: nn.Module, name: str, images: Batches, where: Tensor) -> Sums:
    """Of one layer of the dense network: sums over the positions ``where`` (B, P) of what it reads and gives."""
    layer, sums, start = model.get_submodule(name), Sums(), 0

    def look(module: Any, args: Any, z: Tensor) -> None:
        nonlocal start
        at = where[start : start + len(z)]
        sums.add(columns(module, args[0], at), outputs(module, z, at))
        start += len(z)

    handle = layer.register_forward_hook(look)
    with torch.no_grad():
        for batch in images.split(250):
            model(batch)
    handle.remove()
    return sums.flush()


def joint(model: nn.Module, name: str, change: Tensor, images: Tensor, read: Any) -> float:
    """E ||J D x||^2, by the derivative of the outputs along ``change`` of a layer's weight."""
    weights = dict(model.named_parameters())
    place = f"{name}.weight"

    def run(weight: Tensor) -> Tensor:
        return read(torch.func.functional_call(model, {**weights, place: weight}, (images,)))

    weight = weights[place].detach()
    moved = torch.func.jvp(run, (weight,), (change.to(weight).view_as(weight),))[1]
    return float(moved.double().square().sum() / len(images))


def changed(dense: Any, layer: Any) -> Tensor:
    """The change of the layer's matrix."""
    kind = kind_of(dense)
    return layer.weight_matrix().double() - kind.matrix("", dense).weight.double()


def measure(args: Any) -> None:
    """Every layer, form and size that the table lacks."""
    torch.set_num_threads(1)
    job = compose_job(
        "method=output_aware", "dataset=cifar10", "tracker=none", "estimator.output=hellinger", "estimator.temperature=4", "recovery=none",
        "scorer=noise_to_signal", "calibration.scoring_images=256", f"forms=[{','.join(FORMS)}]", *words(args),
    )  # fmt: skip
    data, evidence = begin(job, args.images)
    fitted: Any = job.method.fit(evidence)
    read = fitted.evidence.estimator.read
    model = measured_copy(evidence.model)
    few = data.network_input(data.calibration(args.images, 0).images[:JOINT_IMAGES], torch.device("cpu"))
    held = Batches.of(data.network_input(data.validation.images[:IMAGES], torch.device("cpu")))
    statistics = fitted.evidence.statistics(("outputs", "gradients", "inputs"))
    rows = KeptRows(args.out)
    for name in args.layers or list(fitted.choices):
        if rows.has(model=args.model, layer=name):
            continue
        dense, matrix = model.get_submodule(name), fitted.evidence.matrices[name]
        C, G, found = statistics[name].inputs, statistics[name].gradients, []
        sums = sums_of(model, name, evidence.batches, statistics[name].where)
        for choices in fitted.choices[name]:
            losses = {scorer.name: _losses(fitted, name, choices.form, scorer) for scorer in (Perturbation(), NoiseToSignal())}
            for share in SHARES:
                size = matrix.weight.numel()
                at = _best(choices, share * size, losses["perturbation"])
                if at is None or any((row["form"], row["params"]) == (choices.form, choices.params[at]) for row in found):
                    continue
                layer: Any = choices.plan(at).build(duplicate(dense))
                refit(layer, matrix.weight, copy.deepcopy(sums), OutputMetric(G), RIDGE)
                D = changed(dense, layer)
                small = replace_layer(duplicate(model), name, layer)
                lost = sum(
                    float((G[rows_, rows_].double() @ d @ c.double() * d).sum())
                    for d, c, rows_ in zip(D.chunk(len(C)), C, _spans(len(D), len(C)), strict=True)
                )
                found.append({
                    "model": args.model, "layer": name, "form": choices.form, "share": share, "params": int(choices.params[at]),
                    "sums": losses["perturbation"][at], "noise_to_signal": losses["noise_to_signal"][at], "regression": lost,
                    "joint": joint(model, name, D, few, read), "divergence": divergence(model, small, held, fitted.evidence.estimator),
                })  # fmt: skip
        print(pd.DataFrame(found).round(6).to_string(index=False), flush=True)
        rows.add(found)


def _spans(rows: int, groups: int) -> list[slice]:
    size = rows // groups
    return [slice(start, start + size) for start in range(0, rows, size)]


def _losses(fitted: Any, name: str, form: str, scorer: Any) -> np.ndarray:
    """The losses of every way of one form with another scorer, from the same perturbations."""
    evidence, first = fitted.evidence, fitted.first
    dense = {name: evidence.model.get_submodule(name)}
    usable: Any = {name: [KNOWN[form]]}
    sides = evidence.once(("sides", name, form), lambda: _all_inputs(evidence, usable, dense)[name])
    out = evidence.once("outputs", lambda: _outputs(first))[name]
    layer = _scored(first, name, 1, out, sides)
    raw = evidence.moments(first.factors)
    at = [i for i, factor in enumerate(first.factors) if factor.block.layer == name]
    scores = [raw[i].second.sum(1).double() for i in at]
    if scorer.name == "noise_to_signal":
        scores = [scorer._layer(score) for score in scores]
    layer = replace(layer, scores=scores, loss=lambda share: scorer.loss(layer.total, share, 1))
    return KNOWN[form].choices(layer).loss


def _best(choices: Any, most: float, loss: np.ndarray) -> int | None:
    """The way with the least loss within these parameters, of which it needs most."""
    fits = np.flatnonzero((choices.params <= most) & (choices.params > 0.6 * most))
    return int(fits[loss[fits].argmin()]) if len(fits) else None


def summarise(out: Path) -> None:
    """Print the correlations, over all rows and inside layers."""
    table = pd.read_csv(out)
    rows = []
    for model, part in table.groupby("model", sort=False):
        for name in PREDICTIONS:
            inside = [layer[name].corr(layer["divergence"], "spearman") for _, layer in part.groupby("layer")]
            equal = [each[name].corr(each["divergence"], "spearman") for _, each in part.groupby(["layer", "share"]) if len(each) > 2]
            logs = np.log(part[[name, "divergence"]].clip(lower=1e-12))
            truth = part["divergence"]
            rows.append({
                "model": model, "prediction": name, "rows": len(part), "spearman": part[name].corr(truth, "spearman"),
                "log_pearson": logs.corr().iloc[0, 1], "spearman_in_layer": float(np.median(inside)),
                "spearman_of_forms": float(np.nanmean(equal)),
            })  # fmt: skip
    summary = pd.DataFrame(rows)
    print(summary.round(3).to_string(index=False))
    write_whole(out.with_name(f"{out.stem}_summary.csv"), lambda path: summary.to_csv(path, index=False, float_format="%.4g"))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("what", nargs="?", choices=["measure", "summary"], default="measure")
    parser.add_argument("--layers", nargs="+", help="names (all)")
    for action in parser._actions:
        if action.dest in ("model", "checkpoint", "data", "sparsity"):
            action.required = False
    args = parser.parse_args()
    if args.what == "measure":
        measure(args)
    summarise(args.out)


if __name__ == "__main__":
    main()
