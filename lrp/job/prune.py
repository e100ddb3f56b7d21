"""The whole method, top to bottom: one job from its data to its table."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from lrp.cost.count import count_params
from lrp.cost.timing import LATENCY_COLUMNS, measure_latency
from lrp.dataset.base import Dataset
from lrp.deploy.saving import save
from lrp.errors import InputError, check_bool, check_int, check_sparsity
from lrp.files import write_whole
from lrp.job.calibration import Calibration, _normalised
from lrp.job.dense import _dense_metrics, _evaluate
from lrp.job.device import find_device
from lrp.job.row import _share, part_names
from lrp.job.running import running
from lrp.method.singular_vectors import SingularVectorsFitted
from lrp.model.source import ModelSource
from lrp.recovery.context import Context
from lrp.results.columns import COLUMNS
from lrp.results.run_folder import RunFolder
from lrp.results.tables import layer_table, score_table

log = logging.getLogger(__name__)


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
    options: str | None = None  # the column: every option of the parts that is not at its default

    def __post_init__(self) -> None:
        check_int("seed", self.seed, 0)
        check_int("evaluation.batch_size", self.batch_size, 1)
        check_bool("save", self.save)
        check_bool("evaluation.latency", self.latency)
        if self.part not in ("test", "validation"):
            raise InputError("evaluation.part", self.part, "choose one of test, validation")
        if self.part == "validation" and self.recovery.name == "finetune" and not self.recovery.hold_out:
            raise InputError("recovery.hold_out", self.recovery.hold_out, "must be true with evaluation.part=validation")
        if self.threads is not None:
            check_int("threads", self.threads, 1)
        if not self.sparsities:
            raise InputError("sparsity.grid", "[]", "must hold at least one sparsity")
        for sparsity in self.sparsities:
            check_sparsity("sparsity.grid", sparsity)
        if len(set(self.sparsities)) < len(self.sparsities):
            raise InputError("sparsity.grid", list(self.sparsities), "each sparsity may appear only once")
        find_device(self.device)

    def run(self, folder: Path, group: str | None = None) -> pd.DataFrame:
        """Run the job in its folder and return its rows."""
        return run(self, folder, group)


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

    chosen = {
        "dataset": data.name,
        "model": job.model.name,
        "method": method.name,
        "recovery": job.recovery.name,
        "compensation": method.compensation.name,
    }
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
                "options": job.options, "seed": job.seed,
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
