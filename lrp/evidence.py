"""What the parts of a method may ask of a network on the calibration examples."""

from __future__ import annotations

import copy
import gc
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor, nn

from lrp.batches import Batches
from lrp.cost.layer_time import LayerTime
from lrp.errors import InputError
from lrp.estimator.cache import cached_moments, moments_key
from lrp.estimator.divergence import Divergence
from lrp.estimator.shared import moments_of, once_for_all
from lrp.group import ALONE, Group
from lrp.layer_statistics.gather import gather
from lrp.layer_statistics.limits import few_samples
from lrp.layer_statistics.reached import never_run
from lrp.matrices import Components, LayerMatrix
from lrp.network.arithmetic import check_weights
from lrp.network.frozen import FrozenNetwork
from lrp.network.gradients import hessian_vector_product, loss_gradients, unreached
from lrp.network.padding import padding_counts
from lrp.network.survey import Candidates, find_candidates

if TYPE_CHECKING:
    from lrp.estimator.base import Estimator
    from lrp.estimator.moments import Moments
    from lrp.layer_statistics.base import LayerStatistics

log = logging.getLogger(__name__)
Made = TypeVar("Made")
MORE = 32  # examples on which a layer may run that does not run on the first one (an expert)


@dataclass
class _Found:
    """What was found of a network for a method's options.

    Attributes:
        options: What all of it depends on.
        statistics: Of every layer.
        needs: Which of them there are.
        moments: Of these factors.
        rest: Keys and values of ``Evidence.once``.
    """

    options: Any = None
    statistics: dict[str, LayerStatistics] = field(default_factory=dict)
    needs: frozenset[str] = frozenset()
    moments: tuple[Sequence[Components], list[Moments]] | None = None
    rest: list[tuple[Any, Any]] = field(default_factory=list)


class Evidence:
    """A network and its calibration examples, and what can be found from both: each thing when it is first asked for, and once.

    Attributes:
        model: The dense network, which nothing here changes.
        batches: All calibration examples, on the network's device: for decomposition and compensation.
        scoring: The first of them, which scores look at.
        labels: (B,) of the scoring examples; None where there are none.
        cache: A folder for what is slow to compute; None: nothing is kept.
        estimator: How outputs are read and perturbations found; None until a method says so (``of``).
        exclude: Names of layers, of modules that contain them, or patterns: they are left alone.
        lookups: Whether embeddings are compressed too.
        tied: Whether layers that hold one weight are compressed too.
        samples: About how many positions of each layer's output statistics look at, in all examples together.
        group: Processes that share the work: each has this evidence, of the same network and the same examples.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Any,
        cache: Path | None = None,
        scoring_images: int | None = None,
        *,
        estimator: Estimator | None = None,
        exclude: Sequence[str] = (),
        samples: int = 65536,
        group: Group = ALONE,
    ) -> None:
        """``batches``: whatever ``Batches.of`` takes; scores look at the first ``scoring_images`` examples (None: at all)."""
        self.model, self.batches, self.cache = model, Batches.of(batches, model=model), cache
        self.scoring = self.batches.take(scoring_images)
        self.labels = self.scoring.labels
        self.estimator, self.exclude, self.samples = estimator, tuple(exclude), samples
        self.group = group
        self.lookups = self.tied = False
        self.times: dict[str, LayerTime] = {}  # of layers, measured once for all methods
        self.unusable: dict[str, str] = {}  # layers that the method leaves alone, with the reasons
        self.seconds_estimator = 0.0  # what the moments took when they were computed, if they are in the cache now
        self._last = [_Found()]  # shared with all copies: methods that differ in nothing that it depends on find it there
        self._found = self._last[0]

    def of(self, estimator: Estimator, exclude: Sequence[str], samples: int, lookups: bool = False, tied: bool = False) -> Evidence:
        """The same evidence for a method with these options; ``lookups``: which can compress embeddings; ``tied``: and layers that hold one
        weight."""
        result = copy.copy(self)
        result.lookups, result.tied = lookups, tied
        result.estimator, result.exclude, result.samples = estimator, tuple(exclude), samples
        vars(result).pop("_thin", None)
        result._look_up()
        if (tuple(exclude), lookups, tied) != (self.exclude, self.lookups, self.tied):
            vars(result).pop("survey", None)
        return result

    def for_model(self, model: nn.Module) -> Evidence:
        """The same examples and options for another network: a later round's."""
        result = Evidence(
            model,
            self.batches,
            self.cache,
            len(self.scoring),
            estimator=self.estimator,
            exclude=self.exclude,
            samples=self.samples,
            group=self.group,
        )
        result.unusable, result.lookups, result.tied = self.unusable, self.lookups, self.tied
        return result

    def without(self, reasons: Mapping[str, str]) -> Evidence:
        """The same evidence with more layers left alone, for these reasons by their names, which are logged."""
        for name, reason in reasons.items():
            log.warning("layer %s is left alone: %s", name, reason)
        result = copy.copy(self)
        result.unusable = {**self.unusable, **reasons}
        result._look_up()
        for name in ("survey", "_thin"):
            vars(result).pop(name, None)
        return result

    def _look_up(self) -> None:
        """Begin anew, unless the last that was begun is for the same options."""
        options = (self._estimator.identity, self.exclude, self.samples, self.lookups, self.tied, tuple(self.unusable))
        if self._last[0].options != options:
            self._last[0] = _Found(options)
        self._found = self._last[0]

    def once(self, key: Any, make: Callable[[], Made]) -> Made:
        """What ``make()`` gives, made when it is first asked for by a ``key`` that is equal to this one."""
        for known, value in self._found.rest:
            if known == key:
                return value
        value = make()
        self._found.rest.append((key, value))
        return value

    def forget(self) -> None:
        """Let go of the frozen network and of what was found by scoring it; statistics stay."""
        held = weakref.ref(self.network.module) if "network" in vars(self) else lambda: None
        for name in ("network", "loss_gradients"):
            vars(self).pop(name, None)
        self._found.moments = None
        self._found.rest.clear()
        if held() is not None:  # its modules hold each other
            gc.collect()

    @cached_property
    def survey(self) -> Candidates:
        """Which layers are compressed, and why the others are left alone.

        Raises:
            InputError: For a network without a layer to compress, an excluded name that fits nothing and weights that are not finite.
        """
        more = self.batches.take(MORE)
        found = find_candidates(self.model, self.batches.example, self.exclude, more.whole, self.lookups, self.tied)
        found = found.without(self.unusable)
        check_weights(found.matrices)
        if not found.matrices:
            reasons = ", ".join(f"{name}: {reason}" for name, reason in found.left.items())
            raise InputError(f"the network has no layer to compress{f' ({reasons})' if reasons else ''}")
        return found

    @property
    def matrices(self) -> dict[str, LayerMatrix]:
        """The matrices of the layers to compress, in the order in which they run."""
        return self.survey.matrices

    @cached_property
    def network(self) -> FrozenNetwork:
        """A frozen copy of the network, traced where torch.fx can do so."""
        return FrozenNetwork(self.model, self.batches.example, share=not self.survey.writes)

    def unreached(self) -> list[str]:
        """The layers through which no gradient of the network's output flows on any scoring example."""
        together = {name: [name, *(use.name for use in matrix.uses)] for name, matrix in self.matrices.items()}
        lost = unreached(self.network, [each for names in together.values() for each in names], self.scoring, self._estimator.read)
        return [name for name, names in together.items() if name in lost and all(each in lost for each in names if self.survey.calls[each])]

    def never_run(self) -> dict[str, str]:
        """Why layers have no statistics, by the names of those that no batch of calibration examples reaches."""
        return never_run(self.model, self.survey, self.batches, self._estimator.memory_limit * 2**30)

    def statistics(self, needs: Sequence[str]) -> dict[str, LayerStatistics]:
        """Second moments of every layer on all calibration examples (``gather`` says which ``needs`` there are)."""
        found = self._found
        if not set(needs) <= found.needs:
            wanted = found.needs | set(needs)
            memory = self._estimator.memory_limit * 2**30
            found.statistics = gather(self.model, self.survey, self.batches, wanted, self._estimator.read, self.samples, memory, self.group)
            found.needs = wanted
        return found.statistics

    @cached_property
    def _thin(self) -> dict[str, tuple[int, int]]:
        """Of every layer with fewer than three times as many samples as columns: both. Examples that are the same count once."""
        return few_samples(self.survey, self.batches, self.samples)

    def few_samples(self) -> dict[str, tuple[int, int]]:
        """Of layers whose statistics were asked for and rest on fewer than three times as many samples as their matrix has columns:
        the samples and the columns."""
        return self._thin if self._found.needs else {}

    @cached_property
    def padding(self) -> list[str]:
        """Where padding counts, in sentences."""
        return padding_counts(self.model, self.survey, self.batches)

    def moments(self, factors: Sequence[Components]) -> list[Moments]:
        """E[y - y_b] and E[(y - y_b)^2] of every component of these blocks on the scoring examples, from the cache where possible."""
        if (known := self.known_moments(factors)) is not None:
            return known
        estimator, images = self._estimator, self.scoring.whole()

        def compute(unfinished: Path | None) -> tuple[list[Moments], float]:
            return moments_of(estimator, self.network, factors, images, unfinished, self.group)

        if self.cache is None:
            found, self.seconds_estimator = compute(None)
        else:
            key = moments_key(self.network, self.model, factors, images, estimator.identity)
            cache = partial(cached_moments, self.cache / "moments", key, factors)
            found, self.seconds_estimator = once_for_all(cache, compute, self.group)
        self._found.moments = factors, found
        return found

    def known_moments(self, factors: Sequence[Components]) -> list[Moments] | None:
        """The moments of these blocks if somebody has asked for them."""
        held = self._found.moments
        return held[1] if held is not None and held[0] is factors else None

    def contributions(self, factors: Sequence[Components]) -> list[Tensor]:
        """The change of every output of every scoring example by each component, to first order: (B, K, R) of each block."""
        return self._estimator.contributions(self.network, factors, self.scoring.whole())

    @cached_property
    def loss_gradients(self) -> Mapping[str, Tensor]:
        """The gradient of the mean cross entropy on the labelled scoring examples with respect to each layer matrix, (M, N) float64."""
        return loss_gradients(self.model, list(self.matrices), self.scoring.whole(), self._labels, self._estimator.pick)

    def hessian_vector_product(self, vectors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """H v of the same loss for one direction v: a matrix (M, N) for each layer that it moves; (M, N) float64 of every layer."""
        return hessian_vector_product(self.model, list(self.matrices), self.scoring.whole(), self._labels, vectors, self._estimator.pick)

    def hessian_gradient_product(self, temperature: float = 1.0) -> Mapping[str, Tensor]:
        """H g of the same loss with the logits divided by ``temperature``, g its gradient; (M, N) float64 of every layer."""
        names, inputs, labels = list(self.matrices), self.scoring.whole(), self._labels

        def pick(result: Any) -> Tensor:
            return self.pick(result) / temperature

        gradients = loss_gradients(self.model, names, inputs, labels, pick)
        return hessian_vector_product(self.model, names, inputs, labels, gradients, pick)

    def pick(self, result: Any) -> Tensor:
        """The tensor of outputs (B, ...) in what the network returns, as the estimator finds it."""
        return self._estimator.pick(result)

    def divergence(self, dense: nn.Module, batches: Batches, temperature: float = 1.0) -> Divergence:
        """How far the softmax outputs of other networks are from those of ``dense`` on some examples, as the estimator reads them."""
        return Divergence(dense, batches, self._estimator, temperature)

    @property
    def _labels(self) -> Tensor:
        if self.labels is None and self.scoring.more:
            raise InputError(
                "calibration: what it has besides inputs are no labels; give an integer of each example, (B,), with every batch"
            )
        if self.labels is None:
            raise InputError("calibration: it holds no labels, which the loss of the network needs; give batches of (inputs, labels)")
        return self.labels

    @property
    def _estimator(self) -> Estimator:
        assert self.estimator is not None, "Evidence.of gives the estimator"
        return self.estimator
