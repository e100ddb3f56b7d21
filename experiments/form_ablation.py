"""What each part of the method with all forms is worth: one thing changed at a time, on validation images.

    python experiments/form_ablation.py --model vgg16 --checkpoint $CHECKPOINT --data $DATA --sparsity 0.95 0.98 --depth 0.5 --out out.csv

Rows are added to the table as they come; those that it has are not measured again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from form_sets import arguments, begin, measured, words
from kept_rows import KeptRows

from lrp.config.build import compose_job
from lrp.form import alternating

WORDS = ["dataset=cifar10", "tracker=none", "calibration.scoring_images=256"]
SET = {"method": "output_aware", "estimator.output": "hellinger", "estimator.temperature": "4", "scorer": "noise_to_signal"}
FORMS = ["matrix", "tucker2", "spatial", "pivoted", "tucker2_pivoted"]


def without(*names: str) -> dict[str, str]:
    """All forms but these."""
    return {"forms": f"[{','.join(form for form in FORMS if form not in names)}]"}


# What is changed: words in place of those above. Those that change nothing of the scores come first: they share them.
VARIANTS: dict[str, dict[str, str]] = {
    "everything": {},
    "without tucker2": without("tucker2", "tucker2_pivoted"),
    "without spatial": without("spatial"),
    "without pivoted storage": without("pivoted", "tucker2_pivoted"),
    "matrices alone": {"forms": "matrix"},
    "outputs not weighed in the fit": {"compensation": "least_squares", "compensation.metric": "plain"},
    "one round of the fit": {"rounds": "1"},
    "no compensation": {"method.parts.compensation": "none"},
    "equal shares of the ranks": {"method": "hosvd", "compensation": "least_squares"},
    "all layers alike": {"scorer.depth": "0"},
    "logits in place of softened outputs": {"estimator.output": "logits", "estimator.temperature": "1"},
}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    args = parser.parse_args()
    torch.set_num_threads(1)

    def job(changed: dict[str, str]) -> Any:
        chosen = {**SET, "scorer.depth": f"{args.depth:g}", **changed}
        return compose_job(*WORDS, *words(args), *(f"{name}={value}" for name, value in chosen.items() if name != "rounds"))

    first = job({})
    data, evidence = begin(first, args.images)
    rows = KeptRows(args.out)
    for changed in args.variants:
        todo = [sparsity for sparsity in args.sparsity if not rows.has(model=args.model, changed=changed, sparsity=sparsity)]
        if not todo or (changed == "all layers alike" and not args.depth):
            continue
        fitted = job(VARIANTS[changed]).method.fit(evidence)
        for sparsity in todo:
            plan = fitted.plan(sparsity)
            small, seconds = with_rounds(int(VARIANTS[changed].get("rounds", alternating.MOST_ROUNDS)), partial(fitted.compress, plan))
            sizes = fitted.sizes(small, plan)
            row = {"model": args.model, "sparsity": sparsity, "changed": changed, "images": args.images}
            row |= {name: sizes[name] for name in ("sparsity_params", "sparsity_macs")} | measured(
                evidence.model, small, data, first.estimator
            )
            stages = {f"seconds_{name}": fitted.seconds.get(name) for name in ("statistics", "decompose", "score")}
            row |= {**stages, "seconds_select": plan.seconds, "seconds_compensate": seconds}
            print(row, flush=True)
            rows.add([row])


def with_rounds(rounds: int, call: Callable[[], Any]) -> Any:
    """What a call gives where the fit takes at most so many rounds, which is no option of the method."""
    usual, alternating.MOST_ROUNDS = alternating.MOST_ROUNDS, rounds
    try:
        return call()
    finally:
        alternating.MOST_ROUNDS = usual


if __name__ == "__main__":
    main()
