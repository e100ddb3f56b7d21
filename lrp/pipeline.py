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

from lrp.data import Data, Dataset, Part, batches
from lrp.decomposition import decompose
from lrp.errors import InputError, check_int, check_sparsity, reject
from lrp.evaluation import Metrics, count_macs, count_params, evaluate
from lrp.files import sha256, write_text, write_whole
from lrp.layers import build, stored_params
from lrp.matrices import Block, check_partition, layer_matrices
from lrp.models.source import ModelSource
from lrp.results import RunFolder, layer_table, score_table
from lrp.scoring.moments import Moments, cached_moments, moments_key

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
    blocking: Any
    scorer: Any
    estimator: Any
    selection: Any
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
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_int("seed", self.seed, 0)
        check_int("evaluation.batch_size", self.batch_size, 1)
        if self.threads is not None:
            check_int("threads", self.threads, 1)
        if not self.sparsities:
            raise reject("sparsity.grid", "[]", "at least one sparsity is needed")
        for sparsity in self.sparsities:
            check_sparsity("sparsity.grid", sparsity)
        if len(set(self.sparsities)) < len(self.sparsities):
            raise reject("sparsity.grid", list(self.sparsities), "every sparsity may be there once")
        find_device(self.device)


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
    todo = [sparsity for sparsity in job.sparsities if not results.finished(sparsity)]
    if not todo:
        log.info("all %d rows of %s are finished", len(results.rows), folder)
        return results.rows
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    device, cache = find_device(job.device), Path(job.cache_dir).expanduser()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    job.model.check()
    data = job.dataset.load()
    model, checkpoint = job.model.obtain(data, job.seed, cache, device)
    calibration = data.calibration(job.calibration.images, job.calibration.seed)
    scoring = calibration.take(torch.arange(job.calibration.scoring_images))
    table = pd.DataFrame({"index": scoring.index.tolist()})
    write_whole(folder / "calibration.csv", lambda path: table.to_csv(path, index=False))

    matrices = layer_matrices(model)
    if not matrices:
        raise InputError(f"model={job.model.name}: it has no Linear or Conv2d layer to compress")
    blocks = job.blocking(matrices)
    check_partition(matrices, blocks)
    start = time.perf_counter()
    factors = decompose(matrices, blocks)
    seconds_decompose = time.perf_counter() - start
    log.info("%s: %d layers, %d blocks, %s components", job.blocking.name, len(matrices), len(blocks), f"{_components(blocks):,}")

    images = data.normalise(scoring.images.to(device))
    found: list[Moments] = []
    seconds_estimator = 0.0  # when it ran, if this job found its moments in the cache

    def moments() -> list[Moments]:
        nonlocal seconds_estimator
        if not found:
            key = moments_key(model, factors, images, job.estimator.identity)
            compute = lambda partial: job.estimator(model, factors, images, partial)  # noqa: E731
            read, seconds_estimator = cached_moments(cache / "moments", key, factors, compute)
            found.extend(read)
        return found

    start = time.perf_counter()
    scores = job.scorer(matrices, factors, moments)
    seconds_score = seconds_estimator or time.perf_counter() - start
    errors = [block.standard_error() for block in found] if any(block.projected for block in found) else None
    write_whole(folder / "scores.parquet", lambda path: score_table(factors, scores, errors).to_parquet(path, index=False))
    masks, seconds_select = [], []
    for sparsity in todo:
        start = time.perf_counter()
        masks.append(job.selection(blocks, scores, sparsity))
        seconds_select.append(time.perf_counter() - start)
    joint = None
    try:
        joint = job.estimator.joint(model, factors, images, [[~mask for mask in keep] for keep in masks])
        if joint is not None:
            moments()
    except InputError as error:  # a scorer that does not look at outputs works on networks that an estimator refuses
        log.warning("perturbation_additive and perturbation_joint stay empty: %s", error)
    y = job.estimator.outputs(model, images)
    energy = float(y.square().sum(1).mean())

    example = data.normalise(data.train.images[:1])
    macs_dense, params_total_dense = count_macs(model, example), count_params(model)
    dense = _dense_metrics(model, data, job, cache, device)
    log.info("dense: test accuracy %.2f %%, %s parameters, %s MACs", 100 * dense.accuracy, f"{params_total_dense:,}", f"{macs_dense:,}")
    params_dense = sum(block.size for block in blocks)

    groups = ("model", "blocking", "scorer", "estimator", "selection", "recovery")
    chosen = {"dataset": data.name, **{name: getattr(job, name).name for name in groups}}
    with job.tracker.start(job.settings, chosen, folder, group) as tracked:
        tracked.rows(results.rows)
        for number, (sparsity, keep) in enumerate(zip(todo, masks)):
            pruned = build(model, factors, keep)
            change = y - job.estimator.outputs(pruned, images)
            additive = sum(float(block.second[~mask].sum()) for block, mask in zip(found, keep)) if found else None
            untouched = all(block.is_dense(int(mask.sum())) and bool(mask.any()) for block, mask in zip(blocks, keep))
            before = dense if untouched else evaluate(pruned, data, data.test, job.batch_size, f"sparsity {sparsity:g}")
            start = time.perf_counter()
            job.recovery(pruned, lambda: _normalised(data, calibration, job.calibration.batch_size, device))
            seconds_recover = time.perf_counter() - start
            after = before
            if job.recovery.changes:
                after = evaluate(pruned, data, data.test, job.batch_size, f"sparsity {sparsity:g}, recovered")
            params, macs = stored_params(blocks, keep), count_macs(pruned, example)
            row = {
                "model": job.model.name, "checkpoint_sha256": checkpoint, "dataset": data.name, "method": "singular_vectors",
                "blocking": job.blocking.name, "decomposition": "svd", "scorer": job.scorer.name, "estimator": job.estimator.name,
                "scoring_images": len(scoring), "selection": job.selection.name, "per_parameter": job.selection.per_parameter,
                "budget": "params", "compensation": "none", "rounds": 1, "recovery": job.recovery.name, "seed": job.seed,
                "sparsity": sparsity, "sparsity_params": 1 - params / params_dense, "sparsity_macs": 1 - macs / macs_dense,
                "params": params, "params_dense": params_dense, "params_total": params_total_dense - params_dense + params,
                "params_total_dense": params_total_dense, "macs": macs, "macs_dense": macs_dense, "accuracy": after.accuracy,
                "accuracy_before_recovery": before.accuracy, "accuracy_dense": dense.accuracy, "loss": after.loss,
                "perturbation_additive": _share(additive, energy), "perturbation_joint": _share(None if joint is None else joint[number], energy),
                "perturbation_true": _share(change.square().sum(1).mean(), energy),
                "blocks": len(blocks), "components": _components(blocks), "components_kept": sum(int(mask.sum()) for mask in keep),
                "seconds_decompose": seconds_decompose, "seconds_score": seconds_score, "seconds_select": seconds_select[number],
                "seconds_recover": seconds_recover, "blocking_k": job.blocking.k if job.blocking.name == "alds" else None,
                "calibration_images": len(calibration), "calibration_seed": job.calibration.seed,
            }  # fmt: skip
            layers = layer_table(sparsity, blocks, keep)
            results.add(row, layers)
            tracked.row(row, layers)
            log.info(
                "%s %s, sparsity %.4f (MACs %.4f): accuracy %.2f %% (before recovery %.2f %%)",
                job.blocking.name, job.scorer.name, row["sparsity_params"], row["sparsity_macs"],
                100 * after.accuracy, 100 * before.accuracy,
            )  # fmt: skip
        tracked.file(folder / "results.csv")
    return results.rows


def _share(value: Tensor | float | None, energy: float) -> float | None:
    return None if value is None else float(value) / max(energy, torch.finfo(torch.float64).tiny)


def _components(blocks: Sequence[Block]) -> int:
    return sum(block.rank for block in blocks)


def _normalised(data: Data, part: Part, size: int, device: torch.device):
    for images, _ in batches(part, size):
        yield data.network_input(images, device)


def _dense_metrics(model: nn.Module, data: Data, job: Job, cache: Path, device: torch.device) -> Metrics:
    """The dense network on the test set: the same in every job of a sweep, so it is measured once."""
    key = sha256([str(model), str(device), str(job.batch_size), data.test.images, data.test.labels, *model.state_dict().values()])
    file = cache / "dense" / f"{key}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        try:
            return Metrics(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            metrics = evaluate(model, data, data.test, job.batch_size, "dense")
            write_text(file, json.dumps(asdict(metrics)))
            return metrics
