"""What a compressed VGG16 is worth as a start: test accuracy after some epochs, from ours and from random factors of the same ranks.

    python experiments/finetune_forms.py --checkpoint $CHECKPOINT --data $DATA --removed 0.958 --macs-removed 0.864 --out a.csv

The network is compressed once and kept beside the table; each start is trained anew for each number of epochs, with the dense network as
teacher. Rows are added to the table as they come; those that it has are not trained again.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from kept_rows import KeptRows
from torch import nn

import lrp
from lrp.batches import Batches
from lrp.config.build import compose_job
from lrp.deploy.saving import save
from lrp.evaluation import evaluate
from lrp.evidence import Evidence
from lrp.layer.compressed import Compressed
from lrp.recovery.context import Context
from lrp.recovery.finetune import FinetuneRecovery

WORDS = [
    "experiment=no_retraining", "method=output_aware", "model=vgg16", "scorer=noise_to_signal", "scorer.depth=0.5", "recovery=none",
    "tracker=none",
]  # fmt: skip


def random_start(model: nn.Module) -> None:
    """Draw the weights of all compressed layers anew, each of its factors with variance 1 / inputs (He et al., 2015, without the factor of
    2: no activation lies between), biases zero."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, Compressed):
            for name, parameter in module.named_parameters(recurse=False):
                with torch.no_grad():
                    if name == "bias":
                        parameter.zero_()
                    else:
                        fan = parameter[0].numel() if parameter.dim() > 1 else 1
                        parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(fan))
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_parameters()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--removed", type=float, required=True)
    parser.add_argument("--macs-removed", type=float)
    parser.add_argument("--epochs", type=int, nargs="+", default=[20])
    parser.add_argument("--start", nargs="+", default=["ours"], choices=["ours", "random"])
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--distill", type=float, default=0.9)
    parser.add_argument("--images", type=int, default=12000)
    parser.add_argument("--samples", type=int, default=48000)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--hold-out", action="store_true", help="do not train on the validation images, and measure accuracy on them too")
    parser.add_argument("--words", nargs="*", default=[], help="more words for the compression")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    job = compose_job(
        *WORDS, f"model.checkpoint={args.checkpoint}", f"dataset.path={args.data}", f"calibration.images={args.images}",
        f"calibration.samples={args.samples}", f"macs_removed={'null' if args.macs_removed is None else args.macs_removed}", *args.words,
    )  # fmt: skip
    data, device = job.dataset.load(), torch.device("cpu")
    dense, _ = job.model.obtain(data, 0, Path("outputs/cache"), device, job.estimator)
    dense.eval()
    kept = args.out.parent / f"compressed-{args.removed:g}-{args.macs_removed}.safetensors"
    if not kept.exists():
        images = data.network_input(data.calibration(args.images, 0).images, device)
        fitted: Any = job.method.fit(Evidence(dense, Batches.of(images), None, 256))
        plan = fitted.plan(args.removed)
        small, _ = fitted.compress(plan)
        save(small, kept, fitted.report(plan, fitted.sizes(small, plan)))
    rows = KeptRows(args.out)
    for epochs in args.epochs:
        for start in args.start:
            small: Any = lrp.load(kept, dense)
            asked = {
                "removed": args.removed, "macs_removed": args.macs_removed, "start": start, "epochs": epochs, "lr": args.lr,
                "weight_decay": args.weight_decay, "distill": args.distill, "precision": args.precision, "hold_out": args.hold_out,
            }  # fmt: skip
            if rows.has(**{name: value for name, value in asked.items() if value is not None}):
                continue
            sizes = {name: small.lrp_report.attrs[name] for name in ("sparsity_params", "sparsity_macs")}
            if start == "random":
                random_start(small)
            before, began = evaluate(small, data, data.test, 250).accuracy, time.perf_counter()
            recovery = FinetuneRecovery(
                epochs=epochs, lr=args.lr, weight_decay=args.weight_decay, distill=args.distill, precision=args.precision,
                hold_out=args.hold_out,
            )  # fmt: skip
            unfinished = args.out.parent / f"unfinished-{args.removed:g}-{start}-{epochs}-{args.lr:g}-{args.hold_out}.pt"
            recovery(small, Context(lambda: [], data, dense, unfinished))
            seconds, after = time.perf_counter() - began, evaluate(small, data, data.test, 250).accuracy
            validation = evaluate(small, data, data.validation, 250).accuracy if args.hold_out else math.nan
            row = {**asked, **sizes, "before": before, "after": after, "validation": validation, "seconds": seconds}
            print(row, flush=True)
            rows.add([row])


if __name__ == "__main__":
    main()
