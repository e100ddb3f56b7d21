"""Pretrained language models from the package index: divergence from the dense network after compression, ours beside the rivals.

    pip download --no-deps --dest wheels iglm rxnfp && for w in wheels/*.whl; do unzip -qo $w -d wheels/x; done
    python experiments/pretrained.py --folder wheels/x --out experiments/results/pretrained.csv

iglm (antibodies, a GPT-2; its licence is for non-commercial use) and rxnfp (chemical reactions, a BERT; MIT). The text is what the dense
network itself gives, sampled token by token: no text of its training is needed. It is calibrated on some samples and tested on others; the
seed draws both anew. Rows are added as they come.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

import lrp
from lrp.batches import Batches
from lrp.config.parts import make
from lrp.estimator.divergence import divergence
from lrp.files import write_whole
from lrp.model.huggingface import huggingface

METHODS = ["output_aware", "svd_uniform", "asvd", "svd_llm", "aa_svd", "kfac_svd", "zero_sum", "surgeon", "lems", "balf"]
SPARSITIES = (0.2, 0.4, 0.6)
TRAINED, TESTED, LENGTH = 512, 256, 64  # sequences to calibrate and to test on, and their tokens


@torch.no_grad()
def next_tokens(model: Any, count: int, generator: torch.Generator) -> Tensor:
    """Sequences (count, LENGTH) that a causal model gives, one token after the other; the first is drawn from all."""
    ids = torch.randint(5, model.config.vocab_size, (count, 1), generator=generator)
    for _ in range(LENGTH - 1):
        probabilities = model(input_ids=ids).logits[:, -1].softmax(-1)
        ids = torch.cat([ids, torch.multinomial(probabilities, 1, generator=generator)], 1)
    return ids


@torch.no_grad()
def filled_masks(model: Any, count: int, generator: torch.Generator) -> Tensor:
    """Sequences (count, LENGTH) that a masked model gives: of all masked places a sixteenth is filled at a time, in random order."""
    words = Path(model.config.name_or_path, "vocab.txt").read_text(encoding="utf-8").split("\n")
    begin, end, mask = (words.index(name) for name in ("[CLS]", "[SEP]", "[MASK]"))
    ids = torch.full((count, LENGTH), mask)
    ids[:, 0], ids[:, -1] = begin, end
    order = torch.rand(count, LENGTH - 2, generator=generator).argsort(1) + 1
    for places in order.split(-(-(LENGTH - 2) // 16), dim=1):
        logits = torch.cat([model(input_ids=part).logits for part in ids.split(64)])
        probabilities = logits.gather(1, places[..., None].expand(-1, -1, logits.shape[2])).softmax(-1)
        ids.scatter_(1, places, torch.multinomial(probabilities.flatten(0, 1), 1, generator=generator).view(places.shape))
    return ids


Sample = Callable[[Any, int, torch.Generator], Tensor]
NETWORKS: dict[str, tuple[str, str, Sample]] = {
    "iglm-s": ("iglm/trained_models/IgLM-S", "causal_lm", next_tokens),
    "iglm": ("iglm/trained_models/IgLM", "causal_lm", next_tokens),
    "rxnfp": ("rxnfp/models/transformers/bert_pretrained", "masked_lm", filled_masks),
}


def measure(model: nn.Module, ids: Tensor, method: str) -> list[dict[str, Any]]:
    """The rows of one method: fitted once, compressed to each sparsity."""
    start = time.perf_counter()
    estimator = make("estimator", "first_order", output="hellinger")
    fitted = lrp.fit(model, {"input_ids": ids[:TRAINED]}, method=method, estimator=estimator, images=TRAINED, scoring_images=64)
    seconds, rows = time.perf_counter() - start, []
    test = Batches.of({"input_ids": ids[TRAINED:]}, model=model)
    for sparsity in SPARSITIES:
        start = time.perf_counter()
        small, report = fitted.compress(sparsity)
        spent = time.perf_counter() - start
        with torch.no_grad():
            found = divergence(model, small, test, estimator)
        totals = report.attrs
        rows.append({
            "sparsity": sparsity, "sparsity_params": totals["sparsity_params"],
            "removed": 1 - totals["params_total"] / totals["params_total_dense"], "divergence": found, "seconds_fit": seconds,
            "seconds_compress": spent,
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the packages were unpacked")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = pd.read_csv(args.out).to_dict("records") if args.out.exists() else []
    for name in args.networks:
        place, task, sample = NETWORKS[name]
        model: Any = huggingface(str(args.folder / place), task).eval()
        model.config.name_or_path = str(args.folder / place)
        for seed in args.seeds:
            ids = None
            for method in args.methods:
                if any((row["network"], row["seed"], row["method"]) == (name, seed, method) for row in rows):
                    continue
                ids = sample(model, TRAINED + TESTED, torch.Generator().manual_seed(seed)) if ids is None else ids
                rows += [{"network": name, "seed": seed, "method": method, **row} for row in measure(model, ids, method)]
                print(*(f"{row['method']} {row['sparsity']}: {row['divergence']:.4f}" for row in rows[-3:]), flush=True)
                table = pd.DataFrame(rows)
                write_whole(args.out, lambda path, table=table: table.to_csv(path, index=False, float_format="%.6g"))


if __name__ == "__main__":
    main()
