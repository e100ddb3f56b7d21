"""A rival for convolutions: Tucker-2 in the norm of the layer's inputs, ranks by energy."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lrp.blocking.none import Unblocked
from lrp.decomposition.activation import Activation
from lrp.decomposition.base import decompose
from lrp.decomposition.metric import factors_in
from lrp.evidence import Evidence
from lrp.form.alternating import cholesky, fit_sides
from lrp.layer.tucker2 import Triple
from lrp.matrices import Factors, LayerMatrix
from lrp.method.hosvd import Hosvd, HosvdFitted, energy_rank
from lrp.partition import cut


@dataclass(frozen=True)
class InputTucker(Hosvd):
    """As ``Hosvd``, but what is kept is measured by E ||(W - W') x||^2 on the calibration images (Kalle et al., NeurIPS 2025), and every
    rank keeps the same share of its side's energy. The outputs' gradients do not count.
    """

    name: str = "input_tucker"

    def fit(self, evidence: Evidence) -> InputTuckerFitted:
        """Look at the layers' weights and inputs.

        Raises:
            InputError: For a network without a layer to compress and for examples that it cannot run on.
        """
        evidence = evidence.of(self.estimator, self.exclude, self.samples)
        start = time.perf_counter()
        statistics = evidence.statistics(["inputs", *self.compensation.needs])
        middle = time.perf_counter()
        factors = decompose(evidence.matrices, cut(Unblocked(), evidence.matrices), Activation(), statistics, evidence.group)
        seconds = {"statistics": middle - start, "decompose": time.perf_counter() - middle}
        return InputTuckerFitted(self, evidence, seconds, factors=factors)


@dataclass
class InputTuckerFitted(HosvdFitted):
    """A network whose layers can be stored at any share of their sides' energies."""

    _energies: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def ranks(self, name: str, share: float) -> tuple[int, int]:
        """The least ranks that keep a share of the energies of the input side and of the output side, of all groups together."""
        if name not in self._energies:
            matrix, sides = self.evidence.matrices[name], []
            for W, C in self._groups(matrix):
                channel = torch.einsum("ckdk->cd", C.unflatten(0, (-1, matrix.kernel)).unflatten(2, (-1, matrix.kernel)))
                T = W.unflatten(1, (-1, matrix.kernel)).transpose(1, 2).flatten(0, 1)
                root = cholesky(channel)
                sides.append((torch.linalg.svdvals(T @ root).square(), factors_in(W, C)[1].square()))
            into, out = zip(*sides)
            self._energies[name] = torch.stack(into).sum(0), torch.stack(out).sum(0)
        into, out = self._energies[name]
        return energy_rank(into, share), energy_rank(out, share)

    def triples(self, matrix: LayerMatrix, q: int, r: int) -> list[Triple]:
        """The factors of each group, fitted in the inputs' norm."""
        return [fit_sides(W, C, None, matrix.kernel, q, r)[:3] for W, C in self._groups(matrix)]

    def _groups(self, matrix: LayerMatrix) -> list[tuple[Tensor, Tensor]]:
        """Of each group its part of the matrix, and the second moment of its inputs."""
        inputs = self.evidence.statistics(["inputs"])[matrix.name].inputs
        assert inputs is not None
        return list(zip(matrix.weight.double().chunk(matrix.groups), inputs))

    def matrix_rank(self, factor: Factors, share: float) -> int:
        """The least rank that keeps a share of the block's energy."""
        return energy_rank(factor.S.double().square(), share) if 0 < share < 1 else super().matrix_rank(factor, share)
