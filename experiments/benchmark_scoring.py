"""How fast scoring is, and whether the fast way selects as the exact one does.

    python experiments/benchmark_scoring.py --vgg16 $CHECKPOINT --resnet20 $RESNET --data $DATA

Speed: for every network and blocking the naive way (a whole forward for each component: a few are timed and scaled), the exact
estimator (on fewer images, scaled: its cost is proportional to them) and the first-order one, in one process, in alternation;
medians of the repetitions. Bounds are ratios of multiply-accumulates. Quality: Spearman correlation of first-order with exact
scores on the same images, overlap of what is kept, and validation accuracy with batch norm re-estimated.
Writes scoring_speed.csv and scoring_quality.csv; with --resume, rows that they hold are not measured again.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pandas as pd
import torch
from scoring_common import Setting, overlap, parser, perturbation, settings, spearman, variance, write_table
from torch import Tensor, nn

from lrp.estimator.exact import ExactEstimator
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.network.frozen import FrozenNetwork

NAIVE_BATCH = 64  # in which a whole forward is fastest
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)


def bounds(setting: Setting, image: Tensor) -> dict[str, float]:
    """How many times fewer multiply-accumulates an image than the naive way's the exact and the first-order estimator need."""
    network = FrozenNetwork(setting.model)
    known = network.record(image)
    macs, positions = {}, {}
    for node in network.nodes:
        module = network.modules.get(node.target) if node.op == "call_module" else None
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            positions[node] = known[node].numel() // len(module.weight)
            macs[node] = positions[node] * module.weight.numel()
    forward, outputs = sum(macs.values()), known[network.nodes[-1]].shape[1]
    first = min(macs, key=network.nodes.index)  # its input needs no gradient
    naive, exact, first_order = 0, 0, forward + outputs * (forward - macs[first])
    for factor in setting.factors:
        node, R, (p, q) = network.layer_node(factor.block.layer), factor.block.rank, factor.block.shape
        behind = sum(macs.get(later, 0) for later in network.after(node))
        naive += R * forward
        exact += R * (behind + positions[node] * (p + q))
        first_order += R * positions[node] * (q + outputs * p)
    return {"exact": naive / exact, "first_order": naive / first_order}


def naive_seconds(setting: Setting, images: Tensor, count: int, generator: torch.Generator) -> float:
    """Seconds a component: take it out of the weight, run the network, compare, put it back."""
    sizes = torch.tensor([len(factor.S) for factor in setting.factors])
    chosen = torch.multinomial(sizes.double(), count, replacement=True, generator=generator)
    times = []
    with torch.inference_mode():
        y = setting.model(images)
        for i in chosen.tolist():
            factor = setting.factors[i]
            weight = setting.model.get_submodule(factor.block.layer).weight
            original = weight.detach().clone()
            r = int(torch.randint(len(factor.S), (1,), generator=generator))
            u, v = factor.U[:, r].to(weight), factor.V[r].to(weight)
            start = time.perf_counter()
            factor.block.of(weight.detach().flatten(1)).sub_(torch.outer(u, v))
            (y - setting.model(images)).double().square().sum(1).mean().item()
            times.append(time.perf_counter() - start)
            weight.detach().copy_(original)
    return statistics.median(times)


def peak(call) -> tuple[object, float | None]:
    """What ``call`` returns, and by how many MiB it raised the peak of the memory in use (on Linux, or on a GPU)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        return result, (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        result = call()
        return result, (_status("VmHWM") - before) / 1024
    except OSError:
        return call(), None


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def speed(setting: Setting, images: int, exact_images: int, repetitions: int) -> dict:
    x = setting.images(images).to(next(setting.model.parameters()).device)
    few = x[:exact_images]
    components = sum(len(factor.S) for factor in setting.factors)
    generator = torch.Generator().manual_seed(0)
    times: dict[str, list[float]] = {"naive": [], "exact": [], "first_order": []}
    memory: dict[str, float | None] = {}
    naive_seconds(setting, x[:NAIVE_BATCH], 1, generator)  # warm up
    FirstOrderEstimator()(setting.model, setting.factors, x[:16])
    for _ in range(repetitions):
        whole = naive_seconds(setting, x[:NAIVE_BATCH], 12, generator) * len(x) / min(len(x), NAIVE_BATCH)
        times["naive"].append(whole * components)
        for estimator, on in ((FirstOrderEstimator(), x), (ExactEstimator(), few)):
            start = time.perf_counter()
            _, memory[estimator.name] = peak(lambda estimator=estimator, on=on: estimator(setting.model, setting.factors, on))
            times[estimator.name].append((time.perf_counter() - start) * len(x) / len(on))
    seconds = {name: statistics.median(values) for name, values in times.items()}
    bound = bounds(setting, x[:1])
    row = {"network": setting.network, "blocking": setting.blocking, "components": components, "images": images}
    row |= {f"seconds_{name}": round(value, 2) for name, value in seconds.items()}
    for name in ("exact", "first_order"):
        ratios = [a / b for a, b in zip(times["naive"], times[name])]
        row |= {f"ratio_{name}": round(seconds["naive"] / seconds[name], 2), f"bound_{name}": round(bound[name], 2),
                f"least_{name}": round(min(ratios), 2), f"most_{name}": round(max(ratios), 2),
                f"MiB_{name}": None if memory[name] is None else round(memory[name])}  # fmt: skip
    return row


def quality(setting: Setting, images: int) -> list[dict]:
    x = setting.images(images).to(next(setting.model.parameters()).device)
    exact, first = setting.moments(ExactEstimator(), x), setting.moments(FirstOrderEstimator(), x)
    row = {"network": setting.network, "blocking": setting.blocking, "images": images}
    row |= {
        "spearman_perturbation": spearman(perturbation(exact), perturbation(first)),
        "spearman_variance": spearman(variance(exact), variance(first)),
    }
    rows = []
    for sparsity in SPARSITIES:
        keep = [setting.keep(perturbation(moments), sparsity) for moments in (exact, first)]
        accuracy = [setting.accuracy(each) for each in keep]
        measured = {"sparsity": sparsity, "overlap": overlap(*keep), "accuracy_exact": accuracy[0], "accuracy_first_order": accuracy[1]}
        rows.append({key: round(value, 5) if isinstance(value, float) else value for key, value in (row | measured).items()})
    return rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--resnet20", type=Path, metavar="CHECKPOINT", help="weights of a ResNet-20 trained on CIFAR-10")
    options.add_argument(
        "--speed-images", type=int, default=128, help="images that the first-order estimator and the naive way are timed on"
    )
    options.add_argument("--images", type=int, default=64, help="images that are scored on to compare the estimators")
    options.add_argument("--square-images", type=int, default=16, help="images for the quality of VGG16 with square blocks (exact is slow)")
    options.add_argument("--exact-images", type=int, default=4, help="images that the exact estimator is timed on")
    options.add_argument("--repetitions", type=int, default=3)
    options.add_argument("--resume", action="store_true")
    args = options.parse_args()
    checkpoints = {"vgg16": args.vgg16, "resnet20": args.resnet20}
    for name, measure in (
        ("speed", lambda s: [speed(s, args.speed_images, args.exact_images, args.repetitions)]),
        ("quality", lambda s: quality(s, args.square_images if (s.network, s.blocking) == ("vgg16", "square") else args.images)),
    ):
        file = args.out / f"scoring_{name}.csv"
        rows = pd.read_csv(file).to_dict("records") if args.resume and file.exists() else []
        done = {(row["network"], row["blocking"]) for row in rows}
        for setting in settings(args, checkpoints):
            if (setting.network, setting.blocking) not in done:
                rows += measure(setting)
                write_table(rows, file)
        print(f"\n{file}\n\n{pd.DataFrame(rows).to_string(index=False)}", flush=True)


if __name__ == "__main__":
    main()
