"""The whole method, top to bottom: one job from its data to its table."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock
from torch import Tensor, nn

from lrp.config import METHOD_PARTS
from lrp.data import Data, Dataset, Part
from lrp.errors import InputError, check_bool, check_int, check_sparsity, reject
from lrp.evaluation import Metrics, count_params, evaluate
from lrp.files import sha256, write_text, write_whole
from lrp.latency import LATENCY_COLUMNS, measure_latency, running
from lrp.models.source import ModelSource, own_sources
from lrp.results import COLUMNS, RunFolder, layer_table, score_table
from lrp.saving import save
from lrp.recovery.context import Context, Unused
from lrp.singular_vectors import SingularVectorsFitted

log = logging.getLogger(__name__)

# Options with a column, of their own name or (k) of another, and those on which no result depends. A part's seed is not the job's.
_NOT_LISTED = {*COLUMNS, "k", "name", "memory_limit"} - {"seed"}
_ELSEWHERE = {"samples": "calibration.samples", "keep_factor": "rounds.keep_factor", "macs_removed": "macs_removed"}  # options of the method, as they are set


@dataclass(frozen=True)
class Calibration:
    """``images`` unlabelled training images, drawn by ``seed``; scores look at the first ``scoring_images`` of them, decompositions
    and compensation at all of them, at about ``samples`` positions of a layer's output in all of them together."""

    images: int = 512
    scoring_images: int = 64
    seed: int = 0
    batch_size: int = 128
    samples: int = 65536

    def __post_init__(self) -> None:
        check_int("calibration.images", self.images, 1)
        check_int("calibration.scoring_images", self.scoring_images, 1)
        check_int("calibration.seed", self.seed, 0)
        check_int("calibration.batch_size", self.batch_size, 2)
        check_int("calibration.samples", self.samples, 1)
        if self.scoring_images > self.images:
            raise reject("calibration.scoring_images", self.scoring_images, f"at most calibration.images={self.images} is allowed")


@dataclass(frozen=True)
class Job:
    """Everything that one run needs; ``settings`` is the resolved configuration that it was made from."""

    dataset: Dataset
    model: ModelSource
    method: Any
    estimator: Any
    recovery: Any
    tracker: Any
    sparsities: Sequence[float]
    calibration: Calibration
    batch_size: int
    seed: int
    device: str
    threads: int | None
    cache_dir: str
    resume: bool
    save: bool
    latency: bool
    part: str
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_int("seed", self.seed, 0)
        check_int("evaluation.batch_size", self.batch_size, 1)
        check_bool("save", self.save)
        check_bool("evaluation.latency", self.latency)
        if self.part not in ("test", "validation"):
            raise reject("evaluation.part", self.part, "test or validation is needed")
        if self.part == "validation" and self.recovery.name == "finetune" and not self.recovery.hold_out:
            raise reject("recovery.hold_out", self.recovery.hold_out, "true is needed with evaluation.part=validation")
        if self.threads is not None:
            check_int("threads", self.threads, 1)
        if not self.sparsities:
            raise reject("sparsity.grid", "[]", "at least one sparsity is needed")
        for sparsity in self.sparsities:
            check_sparsity("sparsity.grid", sparsity)
        if len(set(self.sparsities)) < len(self.sparsities):
            raise reject("sparsity.grid", list(self.sparsities), "every sparsity may be there once")
        find_device(self.device)

    def run(self, folder: Path, group: str | None = None) -> pd.DataFrame:
        """Run the job in its folder and return its rows."""
        return run(self, folder, group)

    def summarise(self, table: pd.DataFrame, folder: Path) -> list[Path]:
        """Print the accuracies and draw figure 3 into a folder; the paths of the figure."""
        from lrp.plotting import accuracy_table, draw_figure3

        print(accuracy_table(table))
        return draw_figure3(table, folder / "figure3.png")


def find_device(name: str) -> torch.device:
    """The device named, "auto" being the first GPU where there is one. Raises InputError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:  # torch raises RuntimeError, AssertionError, NotImplementedError by device
        raise reject("device", name, "auto, cpu, or a device that torch finds here (such as cuda:0) is needed") from error
    return device


def run(job: Job, folder: Path, group: str | None = None) -> pd.DataFrame:
    """Run a job in its folder and return its rows. Raises InputError for input that cannot be used."""
    results = RunFolder(folder, job.settings, job.resume)
    todo = [sparsity for sparsity in job.sparsities if not results.finished(sparsity=sparsity)]
    if not todo:
        log.info("all %d rows of %s are finished", len(results.rows), folder)
        return results.rows
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    device, cache = find_device(job.device), Path(job.cache_dir).expanduser()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    with running(cache, alone=job.latency):
        return _run(job, folder, group, results, todo, device, cache)


def _run(
    job: Job, folder: Path, group: str | None, results: RunFolder, todo: list[float], device: torch.device, cache: Path
) -> pd.DataFrame:
    job.model.check()
    data = job.dataset.load()
    method, estimator = job.method, job.estimator
    model, checkpoint = job.model.obtain(data, job.seed, cache, device, estimator)
    wanted = min(job.calibration.images, len(data.train))
    if wanted < job.calibration.images:
        log.warning("calibration.images=%d: the training part of %s holds %d, which are used", job.calibration.images, data.name, wanted)
    calibration = data.calibration(wanted, job.calibration.seed)
    scoring = calibration.take(torch.arange(min(wanted, job.calibration.scoring_images)))
    table = pd.DataFrame({"index": scoring.index.tolist()})
    write_whole(folder / "calibration.csv", lambda path: table.to_csv(path, index=False))

    inputs = data.network_input(calibration.images, device)
    images = data.normalise(scoring.images.to(device))
    fitted = method.fit(model, inputs, cache, len(scoring))
    scored = isinstance(fitted, SingularVectorsFitted)
    if scored:
        errors = [block.standard_error() for block in fitted.found] if any(block.projected for block in fitted.found) else None
        scores = score_table(fitted.factors, fitted.scores, errors)
        write_whole(folder / "scores.parquet", lambda path: scores.to_parquet(path, index=False))
    plans = (fitted.plan(sparsity) for sparsity in todo)
    joint = None
    if scored and fitted.one_shot:
        plans = list(plans)
        try:
            joint = estimator.joint(model, fitted.factors, images, [[~mask for mask in plan.keep] for plan in plans])
            if joint is not None:
                fitted.moments()
        except InputError as error:  # a scorer that does not look at outputs works on networks that an estimator refuses
            log.warning("perturbation_additive and perturbation_joint stay empty: %s", error)
    y = estimator.outputs(model, images)
    energy = float(y.square().sum(1).mean())
    dense = _dense_metrics(model, data, job, cache, device)
    log.info("dense: %s accuracy %.2f %%, %s parameters", job.part, 100 * dense.accuracy, f"{count_params(model):,}")

    chosen = {"dataset": data.name, "model": job.model.name, "method": method.name, "recovery": job.recovery.name, "compensation": method.compensation.name}
    chosen |= {name: value for name, value in part_names(method).items() if value is not None}
    with job.tracker.start(job.settings, chosen, folder, group) as tracked:
        tracked.rows(results.rows)
        for number, plan in enumerate(plans):
            sparsity = plan.sparsity
            pruned, seconds_compensate = fitted.compress(plan)
            change = y - estimator.outputs(pruned, images)
            found = fitted.found if joint is not None or (scored and fitted.one_shot) else []
            additive = sum(float(block.second[~mask].sum()) for block, mask in zip(found, plan.keep)) if found else None
            before = dense if plan.untouched else _evaluate(pruned, data, job, f"sparsity {sparsity:g}")
            start = time.perf_counter()
            job.recovery(
                pruned,
                Context(
                    lambda: _normalised(data, calibration, job.calibration.batch_size, device), data, model,
                    folder / f"unfinished-{sparsity:g}.pt", job.seed, estimator.pick,
                ),
            )  # fmt: skip
            seconds_recover = time.perf_counter() - start
            after = _evaluate(pruned, data, job, f"sparsity {sparsity:g}, recovered") if job.recovery.changes else before
            sizes = fitted.sizes(pruned, plan)
            latency = measure_latency(model, pruned, images) if job.latency else dict.fromkeys(LATENCY_COLUMNS)
            row = {
                "model": job.model.name, "checkpoint_sha256": checkpoint, "dataset": data.name, "method": method.name,
                **part_names(method), "scoring_images": len(scoring), "exclude": " ".join(method.exclude) or None,
                "compensation": method.compensation.name, "rounds": fitted.rounds(sparsity), "recovery": job.recovery.name,
                "options": changed_options(method, job.recovery) or None, "seed": job.seed,
                **{name: value for name, value in sizes.items() if name in COLUMNS}, "part": job.part, "accuracy": after.accuracy,
                "accuracy_before_recovery": before.accuracy, "accuracy_dense": dense.accuracy, "loss": after.loss,
                "perturbation_additive": _share(additive, energy), "perturbation_joint": _share(None if joint is None else joint[number], energy),
                "perturbation_true": _share(change.square().sum(1).mean(), energy),
                "blocks": len(plan.factors), "components": sum(len(mask) for mask in plan.keep),
                "components_kept": sum(int(mask.sum()) for mask in plan.keep),
                **latency, **{f"seconds_{name}": fitted.seconds.get(name) for name in ("statistics", "decompose", "score")},
                "seconds_select": plan.seconds, "seconds_compensate": seconds_compensate, "seconds_recover": seconds_recover,
                "calibration_images": len(calibration), "calibration_seed": job.calibration.seed,
            }  # fmt: skip
            if job.save:
                save(pruned, folder / f"model-{sparsity:g}.safetensors", fitted.report(plan, sizes))
            layers = layer_table(sparsity, plan.blocks, plan.keep)
            results.add(row, layers)
            tracked.row(row, layers)
            log.info(
                "%s, sparsity %.4f (MACs %.4f): accuracy %.2f %% (before recovery %.2f %%)",
                " ".join(str(value) for name, value in chosen.items() if name in ("method", "blocking", "scorer")),
                row["sparsity_params"], row["sparsity_macs"], 100 * after.accuracy, 100 * before.accuracy,
            )  # fmt: skip
        tracked.file(folder / "results.csv")
    return results.rows


def part_names(method: Any) -> dict[str, Any]:
    """The columns that say which parts a method is made of, empty where it has none."""
    named = {name: getattr(getattr(method, name, None), "name", None) for name in ("blocking", "decomposition", "scorer", "estimator", "selection")}
    options = {name: getattr(getattr(method, "selection", None), name, None) for name in ("per_parameter", "round_to", "break_even")}
    return {**named, **options, "blocking_k": method.blocking.k if named["blocking"] == "alds" else None}


def changed_options(method: Any, recovery: Any) -> str:
    """The options that have no column and other values than their defaults: "scorer.depth=0.5 estimator.output=hellinger"."""
    parts = {name: getattr(method, name, None) for name in METHOD_PARTS} | {"method": method}
    if not isinstance(recovery, Unused):
        parts["recovery"] = recovery
    found = []
    for group, part in parts.items():
        for field in fields(part) if is_dataclass(part) else ():
            value = part.output_name if field.name == "output_fn" else getattr(part, field.name)
            if field.name not in _NOT_LISTED and field.default is not MISSING and value != field.default:
                value = int(value) if isinstance(value, float) and value.is_integer() else value  # 1 and 1.0 are one setting
                found.append(f"{_ELSEWHERE.get(field.name, f'{group}.{field.name}')}={value}")
    return " ".join(found)


def _evaluate(model: nn.Module, data: Data, job: Job, progress: str) -> Metrics:
    return evaluate(model, data, getattr(data, job.part), job.batch_size, progress, job.estimator.pick)


def _share(value: Tensor | float | None, energy: float) -> float | None:
    return None if value is None else float(value) / max(energy, torch.finfo(torch.float64).tiny)


def _normalised(data: Data, part: Part, size: int, device: torch.device):
    for images in part.images.tensor_split(-(-len(part) // size)):  # of about one size: a last small batch would count as much
        yield data.network_input(images, device)


def _dense_metrics(model: nn.Module, data: Data, job: Job, cache: Path, device: torch.device) -> Metrics:
    """The dense network on the images that count: the same in every job of a sweep, so it is measured once."""
    estimator, part = job.estimator, getattr(data, job.part)
    parts = [str(model), *own_sources(model), estimator.output_name or "", str(device), str(job.batch_size)]
    key = sha256([*parts, part.images, part.labels, *model.state_dict().values()])
    file = cache / "dense" / f"{key}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        try:
            return Metrics(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            metrics = _evaluate(model, data, job, "dense")
            write_text(file, json.dumps(asdict(metrics)))
            return metrics
