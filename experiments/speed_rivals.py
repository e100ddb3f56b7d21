"""How much faster a VGG16 is that each method compressed, all timed in one alternation.

    python experiments/speed_rivals.py --vgg16 $CHECKPOINT --data $DATA prepare time

prepare: only make what is timed, which a busy machine can do. The networks are not compensated, which changes no shape; they and their
ONNX files are kept in a folder. time: every setting that speed_rivals.csv lacks, in the modes of benchmark_speed.py but torch.compile.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import benchmark_speed
import torch
from benchmark_speed import Table, forwards
from speed_forms import all_forwards, export_once, network
from torch import Tensor, nn

import lrp
from lrp.config.parts import make
from lrp.cost.timing import alternate, device_name, repeat_to
from lrp.files import sha256_file, write_text

SCORED = {"images": 512, "scoring_images": 64}
PARTS = {
    "scorer": make("scorer", "noise_to_signal", depth=0.5),
    "estimator": make("estimator", "first_order", output="hellinger", temperature=4.0),
    "compensation": "none",
}
METHODS: dict[str, dict[str, Any]] = {
    "output_aware, every form": {"method": "output_aware", "forms": "auto", **PARTS},
    "output_aware, matrices alone": {"method": "output_aware", "forms": ["matrix"], **PARTS},
    "balf": {"method": "balf"},
    "alds": {"method": "alds"},
    "svd_energy": {"method": "svd_energy"},
}


def compressed(args: argparse.Namespace, model: nn.Module, images: Tensor) -> dict[tuple[str, float], tuple[nn.Module, dict[str, Any]]]:
    """The network of each method and sparsity and what is stored of it; from the folder where it is there."""
    found, weights = {}, sha256_file(args.vgg16)[:8]
    for name, words in METHODS.items():
        fitted = None
        for sparsity in args.sparsity:
            file = args.kept / f"{weights}-{name.replace(', ', '-').replace(' ', '_')}-{sparsity:g}.safetensors"
            told = file.with_suffix(".json")
            if not told.exists():
                fitted = fitted or lrp.fit(model, images, **SCORED, **words)
                small, report = fitted.compress(sparsity)
                lrp.save(small, file)
                sizes = {
                    "sparsity_params": report.attrs["sparsity_params"],
                    "macs_ratio": report.attrs["macs_dense"] / report.attrs["macs"],
                    "bytes": file.stat().st_size,
                }
                write_text(told, json.dumps(sizes))
                print(name, sparsity, sizes, flush=True)
            found[name, sparsity] = lrp.load(file, model=model).eval(), json.loads(told.read_text(encoding="utf-8"))
    return found


def time_all(args: argparse.Namespace, model: nn.Module, images: Tensor, made: dict[tuple[str, float], Any]) -> None:
    table = Table(args.out / "speed_rivals.csv", False)
    device = torch.device("cpu")
    for threads, batch in args.settings:
        key = {"network": "vgg16", "device": device_name(device), "threads": threads, "batch": batch}
        if table.has(**key):
            continue
        torch.set_num_threads(threads)
        x = repeat_to(images, batch)
        with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            dense = {"method": "dense", "sparsity": 0.0, "sparsity_params": 0.0, "macs_ratio": 1.0, "bytes": None}
            ways = [(dense, forwards(model, x, Path(folder), compiled=False))]
            for (name, sparsity), (net, sizes) in made.items():
                ways.append(({"method": name, "sparsity": sparsity, **sizes}, all_forwards(net, x, Path(folder), compiled=False)))
            rows = [{**key, **told, "mode": mode} for told, functions in ways for mode in functions]
            timings = alternate([f for _, functions in ways for f in functions.values()], device, args.seconds, least=5, most=60)
            table.add(
                [{**row, "ms": 1e3 * timing.median, "ms_iqr": 1e3 * timing.spread} for row, timing in zip(rows, timings, strict=True)]
            )
            print(f"{threads} threads, batch {batch}: timed", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["prepare", "time"])
    parser.add_argument("--vgg16", type=Path, required=True, metavar="CHECKPOINT", help="weights of a VGG16 trained on CIFAR-10")
    parser.add_argument("--data", required=True, help="CIFAR-10, as dataset.path takes it")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.9, 0.95, 0.98])
    parser.add_argument("--seconds", type=float, default=60, help="that one alternation takes, or five rounds where those take longer (60)")
    parser.add_argument("--kept", type=Path, default=Path("outputs/speed_rivals"), help="folder of the compressed networks")
    parser.add_argument("--out", type=Path, default=Path("experiments/results"))
    args = parser.parse_args()
    args.settings = [(1, 64), (2, 64), (1, 1)]
    args.kept.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    model, images = network(args)
    made = compressed(args, model, images)
    benchmark_speed.export_onnx = partial(export_once, args.kept)  # what ``forwards`` calls
    if "prepare" in args.what:
        with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            forwards(model, repeat_to(images, 2), Path(folder), compiled=False)
            for net, _ in made.values():
                all_forwards(net, repeat_to(images, 2), Path(folder), compiled=False)
    if "time" in args.what:
        time_all(args, model, images, made)


if __name__ == "__main__":
    main()
