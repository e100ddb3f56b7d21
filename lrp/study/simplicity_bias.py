"""The simplicity bias: deeper products of matrices find functions of lower rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas as pd
import torch
from torch import Tensor, nn

from lrp.blocking.none import Unblocked
from lrp.compensation.base import Compensation
from lrp.compensation.none import NoCompensation
from lrp.dataset.base import Part
from lrp.errors import InputError, check_float, check_int, check_list, check_sparsity
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.evidence import Evidence
from lrp.method.singular_vectors import SingularVectors, SingularVectorsFitted
from lrp.scorer.base import Scorer
from lrp.selection.global_ import GlobalSelection
from lrp.study.effective_rank import effective_rank
from lrp.study.job import Cell, Place
from lrp.study.product_layer import Product, collapse
from lrp.study.training import accuracy, pixels, some, train_epoch

NETWORKS = ("linear", "mlp", "conv")


def make_network(name: str, depth: int, channels: int, size: int, num_classes: int) -> nn.Sequential:
    """``body`` (to the embedding) and ``classifier`` for images (B, channels, size, size), every layer a Product of ``depth``
    matrices. linear: 128 units, no nonlinearity; mlp: 128 and 128 units, ReLU; conv: 16, 32, 32 channels, 3 x 3, ReLU and 2 x 2
    maximum pooling, then 64 units with ReLU."""
    linear = lambda n, m: Product(nn.Linear(n, m), depth)  # noqa: E731
    conv = lambda n, m: Product(nn.Conv2d(n, m, 3, padding=1), depth)  # noqa: E731
    inputs = channels * size * size
    if name == "linear":
        body, units = [nn.Flatten(), linear(inputs, 128)], 128
    elif name == "mlp":
        body, units = [nn.Flatten(), linear(inputs, 128), nn.ReLU(), linear(128, 128), nn.ReLU()], 128
    else:
        body = []
        for n, m in ((channels, 16), (16, 32), (32, 32)):
            body += [conv(n, m), nn.ReLU(), nn.MaxPool2d(2)]
        body, units = [*body, nn.Flatten(), linear(32 * (size // 8) ** 2, 64), nn.ReLU()], 64
    return nn.Sequential(*[nn.Sequential(*body), linear(units, num_classes)])


@dataclass
class Training:
    """A network in training, ``steps`` an epoch: the mean loss of each epoch, rows of the table of details, columns of the row."""

    model: nn.Sequential
    optimizer: torch.optim.Optimizer
    steps: int
    measures: list[dict[str, Any]]
    losses: list[float] = field(default_factory=list)
    found: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SimplicityBias:
    """Every layer of three small networks as a product of d matrices (``depths``), trained by SGD and collapsed afterwards.

    Effective rank (entropy of the normalised singular values, nats, and its exponential) of every effective matrix and of the Gram
    matrix of the embedding (cosines of ``gram_images`` validation images), at initialisation and after training; of the linear network
    also the singular values of its end-to-end matrix over time (equation 1 of the paper); and the test accuracy of the collapsed
    network pruned to each of ``sparsities`` (no blocking, ``scorer``, first order on ``scoring_images`` training images, no
    recovery). ``images`` of the training part, pixels / 255, no augmentation. Source: Huh et al., TMLR 2023.
    """

    name: ClassVar[str] = "simplicity_bias"
    keys: ClassVar[tuple[str, ...]] = ("network", "depth")
    columns: ClassVar[tuple[str, ...]] = (
        "images", "epochs", "batch_size", "lr", "momentum", "scorer", "network", "depth", "accuracy", "accuracy_validation", "loss",
        "layers_entropy_initial", "layers_entropy_trained", "layers_exp_initial", "layers_exp_trained",
        "gram_entropy_initial", "gram_entropy_trained", "gram_exp_initial", "gram_exp_trained", "accuracy_pruned_mean",
    )  # fmt: skip
    details: ClassVar[str] = "measures.csv"
    uses: ClassVar[tuple[str, ...]] = ()

    networks: Sequence[str]
    depths: Sequence[int]
    images: int | None
    epochs: int
    batch_size: int
    lr: float
    momentum: float
    gram_images: int
    scorer: Scorer
    scoring_images: int
    sparsities: Sequence[float]

    def __post_init__(self) -> None:
        for option in ("networks", "depths", "sparsities"):
            check_list(f"study.{option}", getattr(self, option))
        for network in self.networks:
            if network not in NETWORKS:
                raise InputError("study.networks", network, f"choose among {', '.join(NETWORKS)}")
        for depth in self.depths:
            check_int("study.depths", depth, 1)
        for sparsity in self.sparsities:
            check_sparsity("study.sparsities", sparsity)
        if self.images is not None:
            check_int("study.images", self.images, 1)
        for option in ("epochs", "batch_size", "gram_images", "scoring_images"):
            check_int(f"study.{option}", getattr(self, option), 1)
        self._check_rate()
        check_float("study.momentum", self.momentum, least=0, below=1)

    def _check_rate(self) -> None:
        check_float("study.lr", self.lr, above=0)

    def cells(self) -> list[Cell]:
        """One network each."""
        return [{"network": network, "depth": depth} for network in self.networks for depth in self.depths]

    def run(self, cell: Cell, place: Place) -> tuple[dict[str, Any], pd.DataFrame]:
        """Train one network; its row and its table of details."""
        data, part = place.data, some(place.data.train, self.images, "study.images")
        training = self._train(cell, part, place)
        last = training.steps * len(training.losses)
        measures = training.measures + self._measure(training.model, data.validation, last)
        collapsed = collapse(training.model).eval()
        found, pruned = self._pruned(self._fit(collapsed, part), data.test)
        measures += [
            {"measure": name, "part": "network", "step": last, "index": s, "value": a} for name, curve in pruned.items() for s, a in curve
        ]
        table = pd.DataFrame(measures)
        row = {
            **{name: getattr(self, name) for name in ("epochs", "batch_size", "lr", "momentum")},
            "scorer": self.scorer.name, "images": len(part), **cell,
            "accuracy": accuracy(collapsed, data.test), "accuracy_validation": accuracy(collapsed, data.validation),
            "loss": training.losses[-1], **found, **training.found,
        }  # fmt: skip
        for kind in ("entropy", "exp"):
            found = table[table["measure"] == f"effective_rank_{kind}"]
            for moment, at in (("initial", found["step"] == 0), ("trained", found["step"] > 0)):
                row[f"gram_{kind}_{moment}"] = float(found[at & (found["part"] == "gram")]["value"].iloc[0])
                row[f"layers_{kind}_{moment}"] = float(found[at & found["part"].str.startswith("layer")]["value"].mean())
        return row, table

    def finish(self, place: Place) -> None:
        """Nothing is kept of a cell but its rows."""

    def _train(self, cell: Cell, part: Part, place: Place) -> Training:
        """One network, trained."""
        training = self._begin(cell, self.lr, part, place)
        for _ in range(self.epochs):
            self._epoch(training, cell, part, place)
        return training

    def _begin(self, cell: Cell, lr: float, part: Part, place: Place) -> Training:
        """One network at its start, which is the same for every rate."""
        data = place.data
        torch.manual_seed(place.seed)
        model = make_network(cell["network"], cell["depth"], data.channels, data.train.images.shape[-1], data.num_classes)
        model.to(place.device)
        optimizer = torch.optim.SGD(model.parameters(), lr, momentum=self.momentum)
        return Training(model, optimizer, -(-len(part) // self.batch_size), self._measure(model, data.validation, 0))

    def _epoch(self, training: Training, cell: Cell, part: Part, place: Place) -> None:
        done, network = len(training.losses), cell["network"]
        if network == "linear" and done:
            training.measures += _singular_values(training.model, training.steps * done)
        label = f"{network}, depth {cell['depth']}, epoch {done + 1} of {self.epochs}"
        training.losses.append(train_epoch(training.model, part, training.optimizer, self.batch_size, place.seed, done, label))

    @torch.no_grad()
    def _measure(self, model: nn.Sequential, validation: Part, step: int) -> list[dict[str, Any]]:
        """Effective ranks of every layer and of the Gram matrix, and the singular values of the linear network."""
        layers = [module for module in model.modules() if isinstance(module, Product)]
        spectra = {f"layer {i}": torch.linalg.svdvals(layer.weight_matrix().double()) for i, layer in enumerate(layers)}
        device = next(model.parameters()).device
        spectra["gram"] = gram_eigenvalues(model[0](pixels(validation.images[: self.gram_images], device)))
        found = []
        for part, values in spectra.items():
            for kind, value in zip(("entropy", "exp"), effective_rank(values)):
                found.append({"measure": f"effective_rank_{kind}", "part": part, "step": step, "index": None, "value": value})
        return found + (_singular_values(model, step) if len(layers) == 2 else [])

    def _fit(self, model: nn.Module, part: Part) -> SingularVectorsFitted:
        """The scores of a network, on images of a part."""
        return self._scored(model, pixels(part.images[: self.scoring_images], next(model.parameters()).device), NoCompensation())

    def _scored(self, model: nn.Module, images: Tensor, compensation: Compensation) -> SingularVectorsFitted:
        method = SingularVectors(Unblocked(), self.scorer, FirstOrderEstimator(), GlobalSelection(), compensation=compensation)
        fitted = method.fit(Evidence(model, images, scoring_images=self.scoring_images))
        assert isinstance(fitted, SingularVectorsFitted)
        return fitted

    def _pruned(self, fitted: SingularVectorsFitted, test: Part) -> tuple[dict[str, float], dict[str, list[tuple[float, float]]]]:
        """Columns of the row; and test accuracy at each sparsity, by what the table of details calls it."""
        curve = [(float(s), accuracy(fitted.build(fitted.select(s)), test)) for s in self.sparsities]
        return {"accuracy_pruned_mean": sum(a for _, a in curve) / len(curve)}, {"accuracy_pruned": curve}


def gram_eigenvalues(embedding: Tensor) -> Tensor:
    """The eigenvalues (n,) >= 0 of the Gram matrix of n embeddings (n, k) scaled to length 1 (cosines; a zero one stays zero)."""
    rows = torch.nn.functional.normalize(embedding.double(), dim=1)
    return torch.linalg.svdvals(rows).square()


@torch.no_grad()
def _singular_values(model: nn.Module, step: int) -> list[dict[str, Any]]:
    """Of the end-to-end matrix of the linear network, and its effective rank."""
    first, last = (module for module in model.modules() if isinstance(module, Product))
    values = torch.linalg.svdvals(last.weight_matrix().double() @ first.weight_matrix().double())
    found = [{"measure": "singular_value", "part": "network", "step": step, "index": i, "value": float(v)} for i, v in enumerate(values)]
    for kind, value in zip(("entropy", "exp"), effective_rank(values)):
        found.append({"measure": f"effective_rank_{kind}", "part": "network", "step": step, "index": None, "value": value})
    return found
