"""How much faster low-rank networks are, beside what their multiply-accumulates promise.

    python experiments/benchmark_speed.py --vgg16 CHECKPOINT --data CIFAR10 [whole layers batch sizes] [--threads 1 2]

whole: VGG16 (CIFAR-10) and ResNet-18 (224 x 224, random weights) at several sparsities, eager, fused, torch.compile and
onnxruntime, all in alternation; the best dense mode against the best compressed one. layers: each layer shape against its rank,
and the measured break-even rank. batch: forward, and forward plus backward, against the batch size. Finished settings are kept in
the tables and not timed again (--fresh does); the figures are drawn from the tables. sizes: the files that lrp.save writes.
"""

from __future__ import annotations

import argparse
import copy
import logging
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lrp.config.parts import make
from lrp.cost.count import count_macs, count_params
from lrp.cost.timing import alternate, device_name, repeat_to
from lrp.decomposition.base import decompose
from lrp.deploy.export import export_onnx
from lrp.deploy.fuse import fuse
from lrp.deploy.saving import save
from lrp.errors import InputError
from lrp.evidence import Evidence
from lrp.figure import speed
from lrp.files import write_whole
from lrp.layer.build import low_rank_layer
from lrp.method.singular_vectors import SingularVectors
from lrp.model.loading import load_weights
from lrp.model.vgg16 import VGG16
from lrp.network.survey import find_candidates
from lrp.partition import cut
from lrp.selection.global_ import GlobalSelection

MODES = ("eager", "channels_last", "fused", "compile", "onnxruntime")
SETTINGS = [  # blocking, budget, sparsity, round_to, break_even
    *(("none", "params", s, 8, "measured") for s in (0.1, 0.3, 0.5, 0.8, 0.9, 0.95)),
    *(("none", "params", s, 1, "params") for s in (0.8, 0.9, 0.95)),
    *((blocking, "macs", 0.7, 8, "params") for blocking in ("none", "alds", "square")),
]
COLUMNS = "network device threads batch blocking budget sparsity round_to break_even mode sparsity_params macs_ratio ms ms_iqr".split()


class Table:
    """A CSV file that grows by whole settings."""

    def __init__(self, file: Path, fresh: bool) -> None:
        self.file = file
        self.rows = pd.DataFrame() if fresh or not file.exists() else pd.read_csv(file, keep_default_na=False, na_values=[""])

    def has(self, **where: Any) -> bool:
        return not self.find(**where).empty

    def find(self, **where: Any) -> pd.DataFrame:
        if self.rows.empty:
            return self.rows
        return self.rows[(self.rows[list(where)] == pd.Series(where)).all(axis=1)]

    def add(self, rows: list[dict[str, Any]]) -> None:
        self.rows = pd.concat([self.rows, pd.DataFrame(rows)], ignore_index=True)
        write_whole(self.file, lambda path: self.rows.to_csv(path, index=False, float_format="%.6g"))


def networks(args: argparse.Namespace, device: torch.device) -> dict[str, tuple[nn.Module, Tensor, list[int]]]:
    """Each network in eval mode with images to score it on, and the batch sizes to time it at."""
    found = {}
    if args.vgg16:
        vgg = VGG16()
        load_weights(vgg, args.vgg16)
        data = make("dataset", "cifar10", path=args.data).load()
        found["vgg16"] = (vgg.eval().to(device), data.normalise(data.calibration(512, 0).images[:64]).to(device), [64, 1])
    if not args.no_resnet:
        from torchvision.models import resnet18

        torch.manual_seed(0)
        found["resnet18"] = (resnet18().eval().to(device), torch.randn(16, 3, 224, 224).to(device), [args.resnet_batch])
    return found


def compress(model: nn.Module, inputs: Tensor, setting: tuple, batch: int, cache: Path) -> tuple[nn.Module, float]:
    """The compressed network and its achieved sparsity in parameters."""
    blocking, budget, sparsity, round_to, break_even = setting
    selection = GlobalSelection(round_to=round_to, break_even=break_even, batch_size=batch)
    parts = {"scorer": make("scorer", "perturbation"), "estimator": make("estimator", "first_order")}
    method = SingularVectors(blocking=make("blocking", blocking), **parts, selection=selection, budget=budget)
    fitted = method.fit(Evidence(model, inputs, cache))
    plan = fitted.plan(sparsity)
    compressed = plan.build().eval()
    return compressed, fitted.sizes(compressed, plan)["sparsity_params"]


def forwards(model: nn.Module, x: Tensor, folder: Path, compiled: bool = True) -> dict[str, Callable[[], Any]]:
    """A function for each mode that runs the network on x, a batch in channels_last order."""
    model = copy.deepcopy(model).requires_grad_(False)
    plain = x.contiguous()
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    fused = fuse(model).to(memory_format=torch.channels_last)
    found: dict[str, Callable[[], Any]] = {"eager": lambda: model(plain), "channels_last": lambda: last(x), "fused": lambda: fused(x)}
    if compiled:
        faster = torch.compile(copy.deepcopy(fused))
        faster(x)
        found["compile"] = lambda: faster(x)
    if x.device.type == "cpu":
        import onnxruntime

        file = folder / f"{len(list(folder.iterdir()))}.onnx"
        export_onnx(fused, plain[:2], file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: plain.numpy()}
        found["onnxruntime"] = lambda: session.run(None, feed)
    return found


def whole(args: argparse.Namespace, device: torch.device) -> None:
    table = Table(args.out / "speed_whole.csv", args.fresh)
    where = device_name(device)
    for network, (model, inputs, batches) in networks(args, device).items():
        for threads in args.threads:
            torch.set_num_threads(threads)
            for batch in batches:
                key = {"network": network, "device": where, "threads": threads, "batch": batch}
                if table.has(**key):
                    continue
                torch._dynamo.reset()
                x = repeat_to(inputs, batch)
                few = [s for s in SETTINGS if s[:2] == ("none", "params") and s[2] >= 0.8]
                settings = SETTINGS if batch > 1 and network == "vgg16" else few
                made = {("dense", "", 0.0, 1, ""): (model, 0.0)}
                for setting in tqdm(settings, desc=f"{network}, {threads} threads, batch {batch}: compressing", disable=None):
                    made[setting] = compress(model, inputs, setting, batch, args.cache_dir)
                functions, rows = [], []
                dense_macs = count_macs(model, inputs[:1])
                with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
                    for setting, (net, achieved) in tqdm(made.items(), desc="preparing", disable=None):
                        ratio = dense_macs / count_macs(net, inputs[:1])
                        for mode, function in forwards(net, x, Path(folder)).items():
                            functions.append(function)
                            named = dict(zip(("blocking", "budget", "sparsity", "round_to", "break_even"), setting))
                            rows.append({**key, **named, "mode": mode, "sparsity_params": achieved, "macs_ratio": ratio})
                    timings = alternate(functions, device, seconds=args.seconds, least=7, most=60)
                for row, timing in zip(rows, timings):
                    row |= {"ms": 1e3 * timing.median, "ms_iqr": 1e3 * timing.spread}
                other = [_outside_layers(net, x, device) for net in (model, fuse(model))]
                for row, share in zip(rows, other):
                    row["outside_share"] = share  # of the dense network in channels_last, with batch norm and with it folded
                table.add(rows)


@torch.no_grad()
def _outside_layers(model: nn.Module, x: Tensor, device: torch.device) -> float:
    """The share of the dense network's time that convolutions and linear layers do not take: each is timed on its own input."""
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)
    calls: list[Callable[[], Any]] = [lambda: model(x)]
    handles = []
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            handles.append(module.register_forward_hook(lambda m, args, _: calls.append(lambda: m.forward(args[0]))))
    model(x)
    for handle in handles:
        handle.remove()
    timings = alternate(calls, device, seconds=5, least=5, most=30)
    return max(0.0, 1 - sum(t.median for t in timings[1:]) / timings[0].median)


def layers(args: argparse.Namespace, device: torch.device) -> None:
    """Every layer shape at ranks between 1/16 of the break-even in parameters and just below it."""
    table = Table(args.out / "speed_layers.csv", args.fresh)
    where = device_name(device)
    for network, (model, inputs, batches) in networks(args, device).items():
        candidates = find_candidates(model, inputs[:1])
        for threads in args.threads:
            torch.set_num_threads(threads)
            seen = set()
            for name, shape in tqdm(candidates.inputs.items(), desc=f"{network}, {threads} threads: layers", disable=None):
                dense = copy.deepcopy(model.get_submodule(name)).requires_grad_(False)
                key = {"network": network, "device": where, "threads": threads, "batch": batches[0], "layer": name}
                before = (repr(dense), shape) in seen
                seen.add((repr(dense), shape))
                if before or table.has(**key):
                    continue
                matrix = candidates.matrices[name]
                (factor,) = decompose({name: matrix}, cut(make("blocking", "none"), {name: matrix}))
                limit = (factor.block.size - 1) // sum(factor.block.shape)
                ranks = {max(1, round(limit * share)) for share in (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)}
                ranks = sorted(ranks | {r for r in range(8, limit + 1, 8) if r & (r - 1) == 0 or r + 8 > limit})
                x = repeat_to(torch.randn(shape).to(device), batches[0])
                low = [low_rank_layer(dense, [factor], [torch.arange(factor.block.rank) < rank]) for rank in ranks]
                with torch.inference_mode():
                    functions = [partial(layer, x) for layer in (dense, *low)]
                    timings = alternate(functions, device, seconds=args.seconds / 4, least=7, most=40)
                M, N = factor.block.shape
                rows = []
                for rank, timing in zip(ranks, timings[1:]):
                    rows.append({
                        **key, "shape": f"{M}x{N}", "input": "x".join(map(str, shape[1:])), "rank": rank,
                        "macs_ratio": M * N / (rank * (M + N)), "params_break_even": limit, "dense_ms": 1e3 * timings[0].median,
                        "ms": 1e3 * timing.median, "speedup": timings[0].median / timing.median,
                    })  # fmt: skip
                table.add(rows)


def batch(args: argparse.Namespace, device: torch.device) -> None:
    """Forward in eval mode, and forward plus backward in train mode, in channels_last order."""
    table = Table(args.out / "speed_batch.csv", args.fresh)
    model, inputs, _ = networks(args, device)["vgg16"]
    threads = max(args.threads)
    torch.set_num_threads(threads)
    key = {"network": "vgg16", "device": device_name(device), "threads": threads}
    compressed, achieved = compress(model, inputs, ("none", "params", 0.9, 8, "params"), 64, args.cache_dir)
    ratio = count_macs(model, inputs[:1]) / count_macs(compressed, inputs[:1])
    pair = [copy.deepcopy(net).to(memory_format=torch.channels_last) for net in (model, compressed)]

    def train(net: nn.Module, x: Tensor) -> None:
        net.zero_grad(set_to_none=True)
        net(x).square().mean().backward()

    for size in tqdm((1, 4, 16, 64, 256), desc="batch sizes", disable=None):
        if table.has(**key, batch=size):
            continue
        x = repeat_to(inputs, size)
        for net in pair:
            net.eval()
        with torch.inference_mode():
            forward = alternate([partial(net, x) for net in pair], device, seconds=args.seconds / 2, least=7)
        both = []
        if size > 1:  # batch norm in train mode needs two
            for net in pair:
                net.train()
            both = alternate([partial(train, net, x) for net in pair], device, seconds=args.seconds / 2)
        rows = []
        for what, timings in (("forward", forward), ("forward and backward", both)):
            if timings:
                dense, small = (1e3 * timing.median for timing in timings)
                found = {"batch": size, "what": what, "sparsity_params": achieved, "macs_ratio": ratio}
                rows.append({**key, **found, "dense_ms": dense, "ms": small, "speedup": dense / small})
        table.add(rows)


def sizes(args: argparse.Namespace, device: torch.device) -> None:
    """Bytes of the files, beside the parameters."""
    model, inputs, _ = networks(args, device)["vgg16"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for sparsity in tqdm((0.0, 0.5, 0.8, 0.9, 0.95), desc="sizes", disable=None):
            compressed, achieved = compress(model, inputs, ("none", "params", sparsity, 1, "params"), 64, args.cache_dir)
            file = Path(folder) / "model.safetensors"
            save(compressed, file)
            params = count_params(compressed)
            rows.append({"sparsity": sparsity, "sparsity_params": achieved, "params_total": params, "bytes": file.stat().st_size})
    table = pd.DataFrame(rows)
    table["params_share"], table["bytes_share"] = table["params_total"] / table["params_total"][0], table["bytes"] / table["bytes"][0]
    write_whole(args.out / "speed_sizes.csv", lambda path: table.to_csv(path, index=False, float_format="%.6g"))
    print(table.to_string(index=False))


def summarise(out: Path) -> None:
    """Print what the tables say, and draw it."""
    summary = []
    if (out / "speed_whole.csv").exists():
        table = pd.read_csv(out / "speed_whole.csv", keep_default_na=False, na_values=["", "nan"])
        for key, part in table.groupby(["network", "device", "threads", "batch"], sort=False):
            dense = part[part["blocking"] == "dense"].set_index("mode")
            best, outside = dense["ms"].idxmin(), dense["outside_share"].min()
            names = ["blocking", "budget", "sparsity", "round_to", "break_even"]
            for setting, rows in part[part["blocking"] != "dense"].groupby(names, sort=False, dropna=False):
                fastest = rows.loc[rows["ms"].idxmin()]
                ratio, speedup = fastest["macs_ratio"], dense["ms"].min() / fastest["ms"]
                summary.append({
                    **dict(zip(("network", "device", "threads", "batch"), key)), **dict(zip(names, setting)),
                    "sparsity_params": fastest["sparsity_params"], "macs_ratio": ratio, "dense_mode": best, "dense_ms": dense["ms"].min(),
                    "mode": fastest["mode"], "ms": fastest["ms"], "speedup": speedup, "of_macs_ratio": speedup / ratio,
                    "amdahl_bound": 1 / (outside + (1 - outside) / ratio),
                })  # fmt: skip
        summary = pd.DataFrame(summary)
        print(summary.round(3).to_string(index=False))
        write_whole(out / "speed_summary.csv", lambda path: summary.to_csv(path, index=False, float_format="%.4g"))
        print(*speed.WHOLE.draw(summary, None, out / "speed_whole")[1], sep="\n")
    if (out / "speed_layers.csv").exists():
        table = pd.read_csv(out / "speed_layers.csv")
        rows = []
        for key, part in table.groupby(["network", "device", "threads", "layer"], sort=False):
            faster = part[part["speedup"] > 1]
            first = part.iloc[0]
            rows.append({
                **dict(zip(("network", "device", "threads", "layer"), key)), **first[["shape", "input", "params_break_even"]],
                "measured_break_even": faster["rank"].max() if len(faster) else 0,
                "median_share_of_macs_ratio": (part["speedup"] / part["macs_ratio"]).median(),
            })  # fmt: skip
        print(pd.DataFrame(rows).round(2).to_string(index=False))
        print(*speed.LAYERS.draw(table, None, out / "speed_layers")[1], sep="\n")
    if (out / "speed_batch.csv").exists():
        table = pd.read_csv(out / "speed_batch.csv")
        print(table.round(3).to_string(index=False))
        print(*speed.BATCH.draw(table, None, out / "speed_batch")[1], sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", nargs="*", metavar="whole layers batch sizes draw", help="which parts (all); draw: none, from the tables alone"
    )
    parser.add_argument("--vgg16", type=Path, metavar="CHECKPOINT", help="weights of a VGG16 trained on CIFAR-10")
    parser.add_argument("--data", help="CIFAR-10, as dataset.path takes it")
    parser.add_argument("--no-resnet", action="store_true", help="leave ResNet-18 out")
    parser.add_argument("--resnet-batch", type=int, default=8, help="images at a time for ResNet-18 (8)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=60, help="that the timing of one setting takes, about (60)")
    parser.add_argument("--cache-dir", type=Path, default=Path("outputs/cache"))
    parser.add_argument("--out", type=Path, default=Path("experiments/results"))
    parser.add_argument("--fresh", action="store_true", help="time again what the tables have")
    args = parser.parse_args()
    parts = {"whole": whole, "layers": layers, "batch": batch, "sizes": sizes, "draw": lambda args, device: None}
    if unknown := [name for name in args.what if name not in parts]:
        parser.error(f"{unknown[0]}: choose whole, layers, batch, sizes or draw")
    if {"batch", "sizes"} & set(args.what or parts) and not (args.vgg16 and args.data) and args.what != ["draw"]:
        parser.error("give --vgg16 and --data")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    logging.getLogger("torch").setLevel(logging.ERROR)
    from torch._inductor import config

    config.freezing = True
    torch._dynamo.config.recompile_limit = 64  # all networks share one forward: past the limit they would run uncompiled, unsaid
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    try:
        for name in args.what or ("whole", "layers", "batch", "sizes"):
            parts[name](args, device)
    except InputError as error:
        raise SystemExit(f"lrp: {error}") from None
    summarise(args.out)


if __name__ == "__main__":
    main()
