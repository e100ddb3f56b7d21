"""How much faster a VGG16 is whose layers take any form, beside matrices alone and what the multiply-accumulates promise.

    python experiments/speed_forms.py --vgg16 CHECKPOINT --data CIFAR10 [prepare time sizes] [--sparsity 0.9 --batch 64 --threads 1]

time: at each sparsity, batch size and number of threads the dense network, matrices alone and ``forms=auto``, as pruned and with ranks in
multiples of 8, in every mode of benchmark_speed.py and as plain layers (``lrp.unfold``), all in alternation. Finished settings are kept in
speed_forms.csv and not timed again.
prepare: only make what is timed, which a busy machine can do: the networks, which are not compensated, and their ONNX files are kept in a
folder. sizes: the files that lrp.save writes. summary: only print and write what speed_forms.csv says.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import benchmark_speed
import pandas as pd
import torch
from benchmark_speed import Table, _outside_layers, forwards
from torch import Tensor, nn
from tqdm import tqdm

from lrp.batches import Batches
from lrp.config.method import make_method
from lrp.config.parts import make
from lrp.cost.count import count_params
from lrp.cost.timing import alternate, device_name, repeat_to
from lrp.deploy.export import export_onnx
from lrp.deploy.fuse import fuse
from lrp.deploy.saving import load, save
from lrp.deploy.unfold import unfold
from lrp.errors import InputError
from lrp.evidence import Evidence
from lrp.files import sha256, sha256_file, write_text, write_whole
from lrp.layer.compressed import Compressed
from lrp.model.loading import load_weights
from lrp.model.vgg16 import VGG16

IMAGES, SCORING_IMAGES = 512, 64
ROUND_TO = (1, 8)
UNFOLDED = {"channels_last": "unfolded", "compile": "unfolded, compile", "onnxruntime": "unfolded, onnxruntime"}
GROUP = ["network", "device", "threads", "batch", "sparsity"]  # what one alternation is of


def network(args: argparse.Namespace) -> tuple[nn.Module, Tensor]:
    """The dense network in eval mode, and images to score it on."""
    model = VGG16()
    load_weights(model, args.vgg16)
    data = make("dataset", "cifar10", path=args.data).load()
    return model.eval(), data.normalise(data.calibration(IMAGES, 0).images)


class Fits:
    """The network scored once; of every set of forms and multiple of ranks what becomes of its layers."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self.evidence = Evidence(model, Batches.of(images), None, SCORING_IMAGES)
        self.fitted: dict[tuple[str, int], Any] = {}

    def build(self, forms: str, round_to: int, sparsity: float) -> tuple[nn.Module, dict[str, Any]]:
        """The compressed network, not compensated, and what is stored of it."""
        if (forms, round_to) not in self.fitted:
            parts = {
                "scorer": make("scorer", "noise_to_signal", depth=0.5),
                "estimator": make("estimator", "first_order", output="hellinger", temperature=4.0),
                "selection": make("selection", "lagrangian", round_to=round_to),
                "compensation": "none",
            }
            shared = {"budget": "params", "macs_removed": None, "exclude": (), "samples": 65536}
            named = forms if forms == "auto" else forms.split()
            self.fitted[forms, round_to] = make_method("output_aware", parts, {**shared, "forms": named}).fit(self.evidence)
        fitted = self.fitted[forms, round_to]
        plan = fitted.plan(sparsity)
        small = plan.build().eval()
        sizes = fitted.sizes(small, plan)
        held = Counter(module.form for module in small.modules() if isinstance(module, Compressed))
        chosen = " ".join(f"{form}:{count}" for form, count in sorted(held.items()))
        return small, {"sparsity_params": sizes["sparsity_params"], "macs_ratio": sizes["macs_dense"] / sizes["macs"], "chosen": chosen}


def compressed(args: argparse.Namespace, model: nn.Module, images: Tensor, sparsity: float) -> dict[tuple[str, int], Any]:
    """The networks of one sparsity and what is stored of each, by forms and multiple of ranks; from their folder where they are there."""
    found, weights = {}, sha256_file(args.vgg16)[:8]
    for forms in args.forms:
        for round_to in ROUND_TO:
            file = args.kept / f"{weights}-{forms.replace(' ', '+')}-{round_to}-{sparsity:g}.safetensors"
            told = file.with_suffix(".json")
            if args.fresh or not told.exists():
                args.fits = args.fits or Fits(model, images)
                small, sizes = args.fits.build(forms, round_to, sparsity)
                save(small, file)
                write_text(told, json.dumps(sizes))
            found[forms, round_to] = load(file, model).eval(), json.loads(told.read_text(encoding="utf-8"))
    return found


def export_once(kept: Path, model: nn.Module, inputs: Tensor, path: Path) -> None:
    """As ``export_onnx``, but a network that was exported before is copied: the file serves any batch size and number of threads."""
    file = kept / f"{sha256([str(model), *model.state_dict().values()])[:16]}.onnx"
    if not file.exists():
        export_onnx(model, inputs, file)
    shutil.copyfile(file, path)


def all_forwards(net: nn.Module, x: Tensor, folder: Path, compiled: bool) -> dict[str, Any]:
    """A function for each mode of a compressed network, and for those of its plain layers, batch norm folded."""
    plain = forwards(unfold(fuse(net)), x, folder, compiled)
    return forwards(net, x, folder, compiled) | {mode: plain[name] for name, mode in UNFOLDED.items() if name in plain}


def prepare(args: argparse.Namespace, device: torch.device) -> None:
    """Make the networks of all sparsities and their ONNX files."""
    model, images = network(args)
    nets = [net for sparsity in args.sparsity for net, _ in compressed(args, model, images, sparsity).values()]
    x = repeat_to(images, 2)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        forwards(model, x, Path(folder), compiled=False)
        for net in tqdm(nets, desc="preparing", disable=None):
            all_forwards(net, x, Path(folder), compiled=False)


def time_all(args: argparse.Namespace, device: torch.device) -> None:
    """Every setting that the table lacks."""
    table = Table(args.out / "speed_forms.csv", args.fresh)
    model, images = network(args)
    for threads in args.threads:
        for batch in args.batch:
            key = {"network": "vgg16", "device": device_name(device), "threads": threads, "batch": batch}
            left = [sparsity for sparsity in args.sparsity if not table.has(**key, sparsity=sparsity)]
            if not left:
                continue
            made = {sparsity: compressed(args, model, images, sparsity) for sparsity in tqdm(left, desc="compressing", disable=None)}
            torch.set_num_threads(threads)
            torch._dynamo.reset()
            x = repeat_to(images, batch).to(device)
            with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
                dense = forwards(model.to(device), x, Path(folder))
                outside = [_outside_layers(net, x, device) for net in (model, fuse(model))]
                for sparsity in tqdm(left, desc=f"{threads} threads, batch {batch}", disable=None):
                    rows = _time(dense, made[sparsity], x, Path(folder), args)
                    for row, share in zip(rows, outside):
                        row["outside_share"] = share  # of the dense network in channels_last, with batch norm and with it folded
                    table.add([{**key, "sparsity": sparsity, **row} for row in rows])


def _time(dense: dict[str, Any], made: dict[tuple[str, int], Any], x: Tensor, folder: Path, args: Any) -> list[dict[str, Any]]:
    """One alternation: a row for each network and mode."""
    nothing = {"sparsity_params": 0.0, "macs_ratio": 1.0, "chosen": ""}
    ways = [({"forms": "dense", "round_to": 1, **nothing}, dense)]
    for (forms, round_to), (net, sizes) in made.items():
        ways.append(({"forms": forms, "round_to": round_to, **sizes}, all_forwards(net.to(x.device), x, folder, round_to in args.compiled)))
    rows = [{**told, "mode": mode} for told, functions in ways for mode in functions]
    timings = alternate([f for _, functions in ways for f in functions.values()], x.device, args.seconds, least=5, most=60)
    return [{**row, "ms": 1e3 * timing.median, "ms_iqr": 1e3 * timing.spread} for row, timing in zip(rows, timings)]


def summarise(out: Path) -> None:
    """Print and write the fastest mode of every network beside the fastest of the dense one, timed in the same alternation."""
    if not (out / "speed_forms.csv").exists():
        return
    table = pd.read_csv(out / "speed_forms.csv")
    rows = []
    for key, part in table.groupby(GROUP, sort=False):
        dense = part[part["forms"] == "dense"]
        best, outside = dense.loc[dense["ms"].idxmin()], dense["outside_share"].min()
        for (forms, round_to), modes in part[part["forms"] != "dense"].groupby(["forms", "round_to"], sort=False):
            fastest = modes.loc[modes["ms"].idxmin()]
            ratio, speedup = fastest["macs_ratio"], best["ms"] / fastest["ms"]
            rows.append({
                **dict(zip(GROUP, key)), "forms": forms, "round_to": round_to, "chosen": fastest["chosen"],
                "sparsity_params": fastest["sparsity_params"], "macs_ratio": ratio, "dense_mode": best["mode"], "dense_ms": best["ms"],
                "mode": fastest["mode"], "ms": fastest["ms"], "speedup": speedup, "of_macs_ratio": speedup / ratio,
                "amdahl_bound": 1 / (outside + (1 - outside) / ratio),
            })  # fmt: skip
    summary = pd.DataFrame(rows).sort_values(["sparsity", "threads", "batch"], kind="stable")
    print(summary.drop(columns=["network", "device", "chosen"]).round(3).to_string(index=False))
    write_whole(out / "speed_forms_summary.csv", lambda path: summary.to_csv(path, index=False, float_format="%.6g"))


def sizes(args: argparse.Namespace, device: torch.device) -> None:
    """Bytes of the files with ``forms=auto``, beside four for each parameter."""
    model, images = network(args)
    fits, rows = Fits(model, images), []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        for sparsity in tqdm((0.0, 0.5, 0.8, 0.9, 0.95, 0.98), desc="sizes", disable=None):
            small, told = fits.build("auto", 1, sparsity)
            save(small, file)
            params, size = count_params(small), file.stat().st_size
            rows.append({"sparsity": sparsity, **told, "params_total": params, "bytes": size, "bytes_of_params": 4 * params})
    table = pd.DataFrame(rows)
    table["bytes_over_params"] = table["bytes"] / table["bytes_of_params"]
    table["params_share"], table["bytes_share"] = table["params_total"] / table["params_total"][0], table["bytes"] / table["bytes"][0]
    write_whole(args.out / "speed_forms_sizes.csv", lambda path: table.to_csv(path, index=False, float_format="%.6g"))
    print(table.to_string(index=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="prepare time sizes summary", help="which parts (time)")
    parser.add_argument("--vgg16", type=Path, metavar="CHECKPOINT", help="weights of a VGG16 trained on CIFAR-10")
    parser.add_argument("--data", help="CIFAR-10, as dataset.path takes it")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.8, 0.9, 0.95, 0.97])
    parser.add_argument("--forms", nargs="+", default=["matrix", "auto"], help="sets to time; of others than these give another --out")
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 1])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--compiled", type=int, nargs="*", default=[8], help="multiples of whose ranks torch.compile runs, ten seconds each (8)"
    )
    parser.add_argument("--seconds", type=float, default=10, help="that one alternation takes, or five rounds where those take longer (10)")
    parser.add_argument("--kept", type=Path, default=Path("outputs/speed_forms"), help="folder of the compressed networks")
    parser.add_argument("--out", type=Path, default=Path("experiments/results"))
    parser.add_argument("--fresh", action="store_true", help="compress and time again what is there")
    args = parser.parse_args()
    parts = {"prepare": prepare, "time": time_all, "sizes": sizes, "summary": lambda args, device: None}
    what = args.what or ["time"]
    if unknown := [name for name in what if name not in parts]:
        parser.error(f"{unknown[0]}: choose prepare, time, sizes or summary")
    if what != ["summary"] and not (args.vgg16 and args.data):
        parser.error("give --vgg16 and --data")
    args.fits = None
    benchmark_speed.export_onnx = partial(export_once, args.kept)  # what ``forwards`` calls
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    logging.getLogger("torch").setLevel(logging.ERROR)
    from torch._inductor import config

    config.freezing = True
    torch._dynamo.config.recompile_limit = 64  # as benchmark_speed.py says
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    for folder in (args.out, args.kept):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        for name in what:
            parts[name](args, device)
    except InputError as error:
        raise SystemExit(f"lrp: {error}") from None
    if {"time", "summary"} & set(what):
        summarise(args.out)


if __name__ == "__main__":
    main()
