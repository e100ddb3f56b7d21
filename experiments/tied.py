"""A weight that an embedding and the output layer share: compressed, or left alone, at the same size of the whole network.

    python experiments/tied.py --seeds 0 1 2 --out experiments/results/tied.csv

A decoder (``lrp.model.small_lm``, 2 blocks, 64 features, a vocabulary of the 1,023 commonest words and signs of Python's help pages) whose
output layer reads the table of the tokens, which is four tenths of its parameters, is trained for some hundred steps. Calibrated on 256
stretches of 64 tokens, divergence on the last tenth of the text. The seed draws the calibration. Rows are added as they come.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics

import torch
from kept_rows import KeptRows
from torch import Tensor, nn
from torch.nn import functional as F

import lrp
from lrp.batches import Batches
from lrp.config.parts import make
from lrp.estimator.divergence import divergence
from lrp.model.small_lm import SmallLM

WORDS, LENGTH, STEPS, TRAINED = 1024, 64, 600, 256
SPARSITIES = (0.2, 0.4, 0.6)


def text() -> Tensor:
    """The help pages as numbers of words; 0 is any other."""
    words = [word for name in sorted(topics) for word in re.findall(r"\w+|[^\w\s]|\n", topics[name])]
    numbers = {word: i + 1 for i, (word, _) in enumerate(Counter(words).most_common(WORDS - 1))}
    return torch.tensor([numbers.get(word, 0) for word in words])


def stretches(words: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, LENGTH) from random places."""
    at = torch.randint(len(words) - LENGTH, (count, 1), generator=generator)
    return words[at + torch.arange(LENGTH)]


def trained(words: Tensor) -> nn.Module:
    """The network."""
    torch.manual_seed(0)
    model, generator = SmallLM(WORDS, 64, 2, 4, LENGTH), torch.Generator().manual_seed(0)
    model.head.weight = model.tokens.weight
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, STEPS)
    for step in range(STEPS):
        x = stretches(words, 32, generator)
        loss = F.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}: {loss.item():.3f}", flush=True)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--checkpoint", type=Path, help="where the trained network is kept; without it, it is trained anew")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    words = text()
    end = len(words) * 9 // 10
    if args.checkpoint and args.checkpoint.exists():
        model = SmallLM(WORDS, 64, 2, 4, LENGTH).eval()
        model.head.weight = model.tokens.weight
        model.load_state_dict(torch.load(args.checkpoint, weights_only=True))
    else:
        model = trained(words[:end])
        if args.checkpoint:
            torch.save(model.state_dict(), args.checkpoint)
    test = Batches.of(words[end : end + 128 * LENGTH].view(-1, LENGTH), model=model)
    estimator = make("estimator", "first_order", output="hellinger")
    rows = KeptRows(args.out, "%.6g")
    for seed in args.seeds:
        calibration = stretches(words[:end], TRAINED, torch.Generator().manual_seed(seed + 1))
        for tie, exclude in (("compressed", ()), ("left alone", ("tokens", "head"))):
            if rows.has(seed=seed, tie=tie):
                continue
            fitted = lrp.fit(model, calibration, estimator=estimator, images=TRAINED, scoring_images=64, exclude=exclude)
            measured = []
            for sparsity in SPARSITIES:
                try:
                    small, report = fitted.compress(sparsity, budget_of="network")
                except lrp.InputError as error:  # so much is not in the other layers
                    print(error)
                    continue
                totals = report.attrs
                with torch.no_grad():
                    found = divergence(model, small, test, estimator)
                removed = 1 - totals["params_total"] / totals["params_total_dense"]
                ranks = report.set_index("layer")["rank"]
                measured.append({"seed": seed, "tie": tie, "sparsity": sparsity, "removed": removed, "divergence": found,
                             "macs_removed": 1 - totals["macs"] / totals["macs_dense"], "rank": ranks.get("tokens")})  # fmt: skip
                print(measured[-1], flush=True)
            rows.add(measured)


if __name__ == "__main__":
    main()
