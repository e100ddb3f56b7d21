"""The whole method, top to bottom: one job from its data to its table."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from lrp.batches import Batches
from lrp.cost.costs import check_budget_of
from lrp.cost.count import count_params
from lrp.cost.timing import LATENCY_COLUMNS, measure_latency
from lrp.dataset.base import Data, Dataset
from lrp.deploy.saving import save
from lrp.epochs import listening
from lrp.errors import InputError, check_bool, check_folder, check_int, check_seed, check_sparsity, check_threads, own_code
from lrp.estimator.base import Estimator
from lrp.estimator.divergence import Divergence
from lrp.evaluation import Metrics, evaluate
from lrp.files import write_whole
from lrp.group import Group, started
from lrp.heap import given_back
from lrp.job.calibration import Calibration
from lrp.job.dense import dense_metrics
from lrp.job.device import find_device, use_threads
from lrp.job.row import asked_columns, chosen_parts, share
from lrp.job.running import running
from lrp.job.together import fit, follow
from lrp.job.tracked import track_files
from lrp.method.base import FittedMethod, Method, Prediction
from lrp.model.source import ModelSource
from lrp.network.arithmetic import in_one_sentence
from lrp.recovery.base import Recovery
from lrp.recovery.context import Context
from lrp.results.columns import COLUMNS, LAYER_COLUMNS, NUMBERS, TEXT_COLUMNS
from lrp.results.run_folder import RunFolder
from lrp.search.base import Search
from lrp.standin.replace import put_back
from lrp.tracker.base import Tracked, Tracker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """Everything that one run needs; ``settings`` is the resolved configuration that it was made from."""

    dataset: Dataset
    model: ModelSource
    method: Method
    estimator: Estimator
    recovery: Recovery
    search: Search
    tracker: Tracker
    sparsities: Sequence[float]
    budget_of: str
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
    parts: Mapping[str, Any]  # of the method, by group
    options: str | None = None  # the column: every option of the parts that is not at its default

    def __post_init__(self) -> None:
        check_seed("seed", self.seed)
        check_int("evaluation.batch_size", self.batch_size, 1)
        check_budget_of(self.budget_of)
        check_bool("save", self.save)
        check_bool("resume", self.resume)
        check_bool("evaluation.latency", self.latency)
        if self.part not in ("test", "validation"):
            raise InputError("evaluation.part", self.part, "choose one of test, validation")
        if self.part == "validation" and self.recovery.trains_on_validation:
            raise InputError(
                "evaluation.part", self.part, "recovery.hold_out=false trains on these images; choose test, or recovery.hold_out=true"
            )
        check_threads(self.threads)
        check_folder("cache_dir", self.cache_dir)
        if not self.sparsities:
            raise InputError("sparsity.grid", "[]", "must hold at least one sparsity")
        for sparsity in self.sparsities:
            check_sparsity("sparsity.grid", sparsity)
        if len(set(self.sparsities)) < len(self.sparsities):
            raise InputError("sparsity.grid", list(self.sparsities), "each sparsity may appear only once")
        find_device(self.device)
        self.search(self.method, self.estimator)

    @property
    def numbers(self) -> list[str]:
        """The columns of its table that hold numbers which were measured."""
        return [*NUMBERS, *(TEXT_COLUMNS if getattr(self.dataset, "text", False) else ())]

    def label(self, sparsity: float) -> str:
        """A sparsity in the name of a file: six digits, or all where others of the grid have the same six."""
        short = f"{sparsity:g}"
        return short if sum(f"{other:g}" == short for other in self.sparsities) == 1 else repr(sparsity)

    def file(self, folder: Path, sparsity: float) -> Path:
        """Where the network of a sparsity is saved."""
        return folder / f"model-{self.label(sparsity)}.safetensors"

    def finished(self, sparsity: float, results: RunFolder) -> bool:
        """Whether a row is there, and its network, where that is to be saved: a row is written first, since a disk that the network fills
        has room for it."""
        if not results.finished(sparsity=sparsity):
            return False
        file = self.file(results.folder, sparsity)
        if self.save and not file.exists():
            log.info("%s is not there, so sparsity %s is computed again", file, self.label(sparsity))
            return False
        return True

    def run(self, folder: Path, group: str | None = None, draw: Callable[[], Sequence[Path]] | None = None) -> pd.DataFrame:
        """Run the job in its folder and return its rows; see ``run``."""
        return run(self, folder, group, draw)


def run(job: Job, folder: Path, group: str | None = None, draw: Callable[[], Sequence[Path]] | None = None) -> pd.DataFrame:
    """Run a job in its folder and return its rows.

    Args:
        job: What is to be done.
        folder: The run folder.
        group: What the sweep is called that the job belongs to.
        draw: Makes figures and pages of the finished tables, for a tracker to keep; their files.

    Raises:
        InputError: For input that cannot be used.
    """
    more = TEXT_COLUMNS if getattr(job.dataset, "text", False) else []
    together = started()
    if not together.first:
        follow(job, together)
        return pd.DataFrame(columns=[*COLUMNS, *more])
    with together.agreed():
        results = RunFolder(folder, job.settings, job.resume, [*COLUMNS, *more], asked=len(job.sparsities))
    todo = together.from_first([sparsity for sparsity in job.sparsities if not job.finished(sparsity, results)])
    if not todo:
        log.info("all %d rows of %s are finished", len(results.rows), folder)
        return results.rows
    use_threads(job.threads)
    device, cache = find_device(job.device), Path(job.cache_dir).expanduser()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with running(cache, alone=job.latency):
        job.model.check()
        with own_code(f"dataset={job.dataset.name}", job.dataset):
            data = job.dataset.load()
        with job.tracker.start(job.settings, chosen_parts(job, data.name), folder, group) as tracked:
            tracked.rows(results.rows)
            _Pruning.begin(job, folder, data, tracked, device, cache, results, together).rows(results, todo)
            track_files(job.tracker, tracked, folder, draw)
    return results.rows


@dataclass
class _Pruning:
    """A job under way: all that its rows have in common.

    Attributes:
        checkpoint: The SHA-256 of the file that holds the dense network's weights.
        images: The scoring images, normalised.
        y: What the dense network gives for them, (B, K) float64.
        dense: How accurate it is.
    """

    job: Job
    folder: Path
    data: Data
    tracked: Tracked
    model: nn.Module
    checkpoint: str
    fitted: FittedMethod
    images: Tensor
    y: Tensor
    dense: Metrics

    @classmethod
    def begin(
        cls, job: Job, folder: Path, data: Data, tracked: Tracked, device: torch.device, cache: Path, results: RunFolder, together: Group
    ) -> _Pruning:
        """Load the network, and let the method look at it and the data."""
        with listening(partial(tracked.epoch, "train", "")):
            model, checkpoint = job.model.obtain(data, job.seed, cache, device, job.estimator)
        results.belongs(data=data.whole_fingerprint(), weights=checkpoint)
        together.all(None)  # the network is there for the others, too
        fitted, scoring = fit(job, data, model, device, cache, together)
        table = pd.DataFrame({"index": scoring.index.tolist()})
        write_whole(folder / "calibration.csv", lambda path: table.to_csv(path, index=False))
        images = data.normalise(scoring.images.to(device))
        y = job.estimator.outputs(model, images)
        dense = dense_metrics(model, data, job.part, job.batch_size, job.estimator, cache, device)
        text = f", perplexity {math.exp(dense.loss):.3f}" if getattr(job.dataset, "text", False) else ""
        log.info("dense: %s accuracy %.2f %%%s, %s parameters", job.part, 100 * dense.accuracy, text, f"{count_params(model):,}")
        return cls(job, folder, data, tracked, model, checkpoint, fitted, images, y, dense)

    def rows(self, results: RunFolder, todo: Sequence[float]) -> None:
        """Prune to each sparsity; a row is written as soon as it is there."""
        job, scores = self.job, self.fitted.score_table()
        if scores is not None:
            write_whole(self.folder / "scores.parquet", lambda path: scores.to_parquet(path, index=False))
        predicted = dict(zip(job.sparsities, self.fitted.predict(job.sparsities)))  # of all: sums of fewer are rounded otherwise
        chosen = chosen_parts(job, self.data.name)
        said = " ".join(str(value) for name, value in chosen.items() if name in ("method", "blocking", "scorer"))
        log.info("pruning: %d of %d rows to compute", len(todo), len(job.sparsities))
        for sparsity in todo:
            results.update()
            if self.fitted.evidence.group.from_first(job.finished(sparsity, results)):  # by another, since a node that was lost came back
                continue
            with in_one_sentence(self.model):
                row, layers, pruned = self.row(sparsity, predicted[sparsity])
            results.add(row, layers)
            results.add_trials(self.fitted.trials)
            self.tracked.row(row, layers)
            if job.save:
                save(put_back(pruned, self.model), job.file(self.folder, sparsity))
                self.tracked.model(job.file(self.folder, sparsity), job.label(sparsity), row)
            text = "" if "perplexity" not in row else f", perplexity {row['perplexity']:.3f}, divergence {row['divergence']:.4f}"
            log.info(
                "%s, sparsity %.4f (MACs %.4f): accuracy %.2f %% (before recovery %.2f %%)%s",
                said, row["sparsity_params"], row["sparsity_macs"], 100 * row["accuracy"], 100 * row["accuracy_before_recovery"], text,
            )  # fmt: skip

    def row(self, sparsity: float, prediction: Prediction) -> tuple[dict[str, Any], pd.DataFrame, nn.Module]:
        """The network pruned to one sparsity, recovered and measured: its row, those of its layers, and the network with its report."""
        job, fitted = self.job, self.fitted
        with given_back():
            plan = fitted.plan_of(sparsity, self.job.budget_of)
            pruned, seconds_compensate = fitted.compress(plan)
        change = self.y - job.estimator.outputs(pruned, self.images)
        before = self.dense if plan.untouched else self._evaluate(pruned, f"sparsity {sparsity:g}")
        seconds_recover = self._recover(pruned, sparsity)
        after = self._evaluate(pruned, f"sparsity {sparsity:g}, recovered") if job.recovery.changes else before
        sizes = fitted.sizes(pruned, plan)
        latency = measure_latency(self.model, pruned, self.images) if job.latency else dict.fromkeys(LATENCY_COLUMNS)
        pruned.lrp_report = fitted.report(plan, sizes)
        energy = float(self.y.square().sum(1).mean())
        layers = pd.DataFrame(plan.rows, columns=LAYER_COLUMNS)
        measured = {
            **{name: value for name, value in sizes.items() if name in COLUMNS},
            "accuracy": after.accuracy, "accuracy_before_recovery": before.accuracy, "accuracy_dense": self.dense.accuracy,
            "loss": after.loss, **self._of_text(pruned, after),
            "perturbation_additive": share(prediction.additive, energy), "perturbation_joint": share(prediction.joint, energy),
            "perturbation_true": share(change.square().sum(1).mean(), energy), "rounds": fitted.rounds(sparsity),
            "blocks": len(layers), "components": int(layers["full"].sum()), "components_kept": int(layers["kept"].sum()), **latency,
            **{f"seconds_{name}": fitted.seconds.get(name) for name in ("statistics", "decompose", "score")},
            "seconds_select": plan.seconds, "seconds_compensate": seconds_compensate, "seconds_recover": seconds_recover,
            "threads": torch.get_num_threads(),
        }  # fmt: skip
        evidence = fitted.evidence
        asked = asked_columns(job, self.data.name, self.checkpoint, len(evidence.scoring), len(evidence.batches))
        return {**asked, **measured}, layers, pruned

    def _recover(self, pruned: nn.Module, sparsity: float) -> float:
        """Let the recovery work on a pruned network, in place; the seconds that it took."""
        job, start = self.job, time.perf_counter()
        batches = self.fitted.evidence.batches
        context = Context(
            lambda: batches.even(job.calibration.batch_size), self.data, self.model,
            self.folder / f"unfinished-{job.label(sparsity)}.pt", job.seed, job.estimator.pick, job.estimator.output_name or "",
        )  # fmt: skip
        listener = partial(self.tracked.epoch, job.recovery.name, f"{100 * sparsity:.10g}")
        with own_code(f"recovery={job.recovery.name}", job.recovery), listening(listener):
            job.recovery(pruned, context)
        return time.perf_counter() - start

    def _of_text(self, pruned: nn.Module, after: Metrics) -> dict[str, float | None]:
        """What is measured of text besides."""
        if not getattr(self.job.dataset, "text", False):
            return {}
        found = self._divergence(pruned)
        return {"perplexity": math.exp(after.loss), "perplexity_dense": math.exp(self.dense.loss), "divergence": found}

    @cached_property
    def _divergence(self) -> Divergence:
        """From the dense network on the images that accuracies are measured on."""
        images = getattr(self.data, self.job.part).images
        inputs = Batches.of(self.data.network_input(images, next(self.model.parameters()).device), model=self.model)
        return Divergence(self.model, inputs, self.job.estimator)

    def _evaluate(self, model: nn.Module, progress: str) -> Metrics:
        job = self.job
        return evaluate(model, self.data, getattr(self.data, job.part), job.batch_size, progress, job.estimator.pick)
