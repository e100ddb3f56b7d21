"""The whole method, top to bottom: one job from its data to its table."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock
from torch import Tensor, nn

from lrp.data import Data, Dataset, Part
from lrp.errors import InputError, check_bool, check_int, check_sparsity, reject
from lrp.evaluation import Metrics, count_params, evaluate
from lrp.files import sha256, write_text, write_whole
from lrp.latency import LATENCY_COLUMNS, measure_latency, running
from lrp.models.source import ModelSource, own_sources
from lrp.results import COLUMNS, RunFolder, layer_table, score_table
from lrp.saving import save
from lrp.singular_vectors import SingularVectors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibration:
    """``images`` unlabelled training images, drawn by ``seed``; scores look at the first ``scoring_images`` of them."""

    images: int = 512
    scoring_images: int = 64
    seed: int = 0
    batch_size: int = 128

    def __post_init__(self) -> None:
        check_int("calibration.images", self.images, 1)
        check_int("calibration.scoring_images", self.scoring_images, 1)
        check_int("calibration.seed", self.seed, 0)
        check_int("calibration.batch_size", self.batch_size, 2)
        if self.scoring_images > self.images:
            raise reject("calibration.scoring_images", self.scoring_images, f"at most calibration.images={self.images} is allowed")


@dataclass(frozen=True)
class Job:
    """Everything that one run needs; ``settings`` is the resolved configuration that it was made from."""

    dataset: Dataset
    model: ModelSource
    method: SingularVectors
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
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_int("seed", self.seed, 0)
        check_int("evaluation.batch_size", self.batch_size, 1)
        check_bool("save", self.save)
        check_bool("evaluation.latency", self.latency)
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
    model, checkpoint = job.model.obtain(data, job.seed, cache, device, job.method.estimator)
    wanted = min(job.calibration.images, len(data.train))
    if wanted < job.calibration.images:
        log.warning("calibration.images=%d: the training part of %s holds %d, which are used", job.calibration.images, data.name, wanted)
    calibration = data.calibration(wanted, job.calibration.seed)
    scoring = calibration.take(torch.arange(min(wanted, job.calibration.scoring_images)))
    table = pd.DataFrame({"index": scoring.index.tolist()})
    write_whole(folder / "calibration.csv", lambda path: table.to_csv(path, index=False))

    images = data.normalise(scoring.images.to(device))
    fitted = job.method.fit(model, images, cache)
    blocks, factors, estimator = fitted.blocks, fitted.factors, job.method.estimator
    errors = [block.standard_error() for block in fitted.found] if any(block.projected for block in fitted.found) else None
    write_whole(folder / "scores.parquet", lambda path: score_table(factors, fitted.scores, errors).to_parquet(path, index=False))
    masks, seconds_select = [], []
    for sparsity in todo:
        start = time.perf_counter()
        masks.append(fitted.select(sparsity))
        seconds_select.append(time.perf_counter() - start)
    joint = None
    try:
        joint = estimator.joint(model, factors, images, [[~mask for mask in keep] for keep in masks])
        if joint is not None:
            fitted.moments()
    except InputError as error:  # a scorer that does not look at outputs works on networks that an estimator refuses
        log.warning("perturbation_additive and perturbation_joint stay empty: %s", error)
    y = estimator.outputs(model, images)
    energy = float(y.square().sum(1).mean())
    dense = _dense_metrics(model, data, job, cache, device)
    log.info("dense: test accuracy %.2f %%, %s parameters", 100 * dense.accuracy, f"{count_params(model):,}")

    method = job.method
    chosen = {"dataset": data.name, "model": job.model.name, "recovery": job.recovery.name}
    chosen |= {name: getattr(method, name).name for name in ("blocking", "scorer", "estimator", "selection")}
    with job.tracker.start(job.settings, chosen, folder, group) as tracked:
        tracked.rows(results.rows)
        for number, (sparsity, keep) in enumerate(zip(todo, masks)):
            pruned = fitted.build(keep)
            change = y - estimator.outputs(pruned, images)
            found = fitted.found
            additive = sum(float(block.second[~mask].sum()) for block, mask in zip(found, keep)) if found else None
            untouched = all(bool(mask.all()) for mask in keep)
            before = dense if untouched else evaluate(pruned, data, data.test, job.batch_size, f"sparsity {sparsity:g}", estimator.pick)
            start = time.perf_counter()
            job.recovery(pruned, lambda: _normalised(data, calibration, job.calibration.batch_size, device))
            seconds_recover = time.perf_counter() - start
            after = before
            if job.recovery.changes:
                after = evaluate(pruned, data, data.test, job.batch_size, f"sparsity {sparsity:g}, recovered", estimator.pick)
            sizes = fitted.sizes(pruned, keep, sparsity)
            latency = measure_latency(model, pruned, images) if job.latency else dict.fromkeys(LATENCY_COLUMNS)
            row = {
                "model": job.model.name, "checkpoint_sha256": checkpoint, "dataset": data.name, "method": method.name,
                "blocking": method.blocking.name, "decomposition": "svd", "scorer": method.scorer.name, "estimator": estimator.name,
                "scoring_images": len(scoring), "selection": method.selection.name, "per_parameter": method.selection.per_parameter,
                "round_to": method.selection.round_to, "break_even": method.selection.break_even, "exclude": " ".join(method.exclude) or None,
                "compensation": "none", "rounds": 1, "recovery": job.recovery.name, "seed": job.seed,
                **{name: value for name, value in sizes.items() if name in COLUMNS}, "accuracy": after.accuracy,
                "accuracy_before_recovery": before.accuracy, "accuracy_dense": dense.accuracy, "loss": after.loss,
                "perturbation_additive": _share(additive, energy), "perturbation_joint": _share(None if joint is None else joint[number], energy),
                "perturbation_true": _share(change.square().sum(1).mean(), energy),
                "blocks": len(blocks), "components": fitted.components, "components_kept": sum(int(mask.sum()) for mask in keep),
                **latency, "seconds_decompose": fitted.seconds_decompose, "seconds_score": fitted.seconds_score,
                "seconds_select": seconds_select[number],
                "seconds_recover": seconds_recover, "blocking_k": method.blocking.k if method.blocking.name == "alds" else None,
                "calibration_images": len(calibration), "calibration_seed": job.calibration.seed,
            }  # fmt: skip
            if job.save:
                save(pruned, folder / f"model-{sparsity:g}.safetensors", fitted.report(keep, sizes))
            layers = layer_table(sparsity, blocks, keep)
            results.add(row, layers)
            tracked.row(row, layers)
            log.info(
                "%s %s, sparsity %.4f (MACs %.4f): accuracy %.2f %% (before recovery %.2f %%)",
                method.blocking.name, method.scorer.name, row["sparsity_params"], row["sparsity_macs"],
                100 * after.accuracy, 100 * before.accuracy,
            )  # fmt: skip
        tracked.file(folder / "results.csv")
    return results.rows


def _share(value: Tensor | float | None, energy: float) -> float | None:
    return None if value is None else float(value) / max(energy, torch.finfo(torch.float64).tiny)


def _normalised(data: Data, part: Part, size: int, device: torch.device):
    for images in part.images.tensor_split(-(-len(part) // size)):  # of about one size: a last small batch would count as much
        yield data.network_input(images, device)


def _dense_metrics(model: nn.Module, data: Data, job: Job, cache: Path, device: torch.device) -> Metrics:
    """The dense network on the test set: the same in every job of a sweep, so it is measured once."""
    estimator = job.method.estimator
    parts = [str(model), *own_sources(model), estimator.output_name or "", str(device), str(job.batch_size)]
    key = sha256([*parts, data.test.images, data.test.labels, *model.state_dict().values()])
    file = cache / "dense" / f"{key}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        try:
            return Metrics(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            metrics = evaluate(model, data, data.test, job.batch_size, "dense", estimator.pick)
            write_text(file, json.dumps(asdict(metrics)))
            return metrics
