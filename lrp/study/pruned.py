"""Networks that are scored and pruned before or while they are trained: what the studies of that share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from lrp.batches import Batches
from lrp.blocking.none import Unblocked
from lrp.dataset.base import Data, Part
from lrp.decomposition.base import Decomposition
from lrp.errors import check_int
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.evaluation import evaluate
from lrp.evidence import Evidence
from lrp.layer.base import LowRank
from lrp.method.plan import matrix_plans
from lrp.method.singular_vectors import SingularVectors, SingularVectorsFitted
from lrp.recovery.batchnorm import BatchNormRecovery
from lrp.recovery.context import Context
from lrp.scorer.base import Scorer
from lrp.selection.base import Selection
from lrp.study.job import Place
from lrp.study.networks import NETWORKS, check_network

DENSE = "dense"  # the scorer and the mask of the network that nothing is taken from
SCHEDULE = ("batch_size", "lr", "momentum", "weight_decay")  # settings of ``StudySgd`` beside its epochs
MEASURED = ("accuracy", "accuracy_validation", "loss", "weights", "kept", "sparsity_params", "layers_empty")


def check_shared(network: object, scoring_images: object, images: object) -> None:
    """Check the options of a study that say what is pruned, and on which images.

    Raises:
        InputError: For a network that there is not, and for numbers of images that are none.
    """
    check_network(network)
    check_int("study.scoring_images", scoring_images, 1)
    if images is not None:
        check_int("study.images", images, 2)


def begin(network: str, place: Place) -> nn.Module:
    """A network of ``NETWORKS`` just initialised, by the seed alone."""
    torch.manual_seed(place.seed)
    return NETWORKS[network](in_channels=place.data.channels, num_classes=place.data.num_classes).to(place.device).eval()


@dataclass(frozen=True)
class Pruned:
    """What is left of a network.

    Attributes:
        fitted: The network, cut into components and scored.
        keep: Masks (R,) of the components that stay, one for each layer.
    """

    fitted: SingularVectorsFitted
    keep: Sequence[Tensor]

    def network(self) -> nn.Module:
        """A copy of the network with only these components."""
        return self.fitted.build(self.keep)

    def shuffled(self, seed: int) -> nn.Module:
        """The control: as many components of each layer, which ones drawn by ``seed``. Of layers that become U V it is the ranks that stay:
        both factors are drawn anew, by Glorot's initialisation."""
        generator = torch.Generator().manual_seed(seed)
        keep = [mask[torch.randperm(len(mask), generator=generator)] for mask in self.keep]
        network = self.fitted.build(keep)
        for module in network.modules():
            if isinstance(module, LowRank):
                module.initialise(generator)
        return network

    def layers(self) -> pd.DataFrame:
        """One row per layer: ``layer``, the ``weights`` that it had, and ``kept``, the parameters that are stored of them (those that may
        be other than zero where weights are masked)."""
        plans = matrix_plans(self.fitted.evidence.survey, self.fitted.factors, self.keep)
        return pd.DataFrame([{"layer": name, "weights": plan.matrix.weight.numel(), "kept": plan.params} for name, plan in plans.items()])


def prune(
    model: nn.Module, data: Data, scoring: Part, decomposition: Decomposition, scorer: Scorer, selection: Selection, sparsity: float
) -> Pruned:
    """Score a network on the labelled images of ``scoring`` and choose what stays at a sparsity. The network is left as it is, but for the
    running statistics of batch norm: they become those of these images, so that a network that was never trained is scored at work."""
    device = next(model.parameters()).device
    images = data.network_input(scoring.images, device)
    BatchNormRecovery()(model, Context(images=lambda: [images]))
    inputs = Batches.of(images)
    inputs.labels = scoring.labels.to(device)
    method = SingularVectors(Unblocked(), scorer, FirstOrderEstimator(), selection, decomposition)
    fitted = method.fit(Evidence(model.eval(), inputs))
    assert isinstance(fitted, SingularVectorsFitted)
    return Pruned(fitted, fitted.select(sparsity))


def sizes(layers: pd.DataFrame) -> dict[str, Any]:
    """The columns of a row that sum up its layers."""
    weights, kept = int(layers["weights"].sum()), int(layers["kept"].sum())
    return {"weights": weights, "kept": kept, "sparsity_params": 1 - kept / weights, "layers_empty": int((layers["kept"] == 0).sum())}


def measured(model: nn.Module, data: Data) -> dict[str, float]:
    """The columns ``accuracy`` (test images) and ``accuracy_validation``."""
    parts = {"accuracy": data.test, "accuracy_validation": data.validation}
    return {name: evaluate(model, data, part, 500).accuracy for name, part in parts.items()}
