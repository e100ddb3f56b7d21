"""What layers read and how the network's outputs react to theirs: second moments on calibration images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from lrp.layer_statistics.few_samples import FewSamples
from lrp.matrices import Block
from lrp.shelf import shelved


def quadratic(W: Tensor, C: Tensor | FewSamples) -> Tensor:
    """W C W^T (p, p) of W (p, q) and C (q, q), or of a diagonal C (q,)."""
    if isinstance(C, FewSamples):
        return C.quadratic(W)
    return W * C @ W.T if C.dim() == 1 else W @ C @ W.T


@shelved("inputs", "gradients", "outputs", "zz")
@dataclass(frozen=True)
class LayerStatistics:
    """Second moments of one layer, float64 on the CPU; None: not asked for. Those that are large may lie in a file, from which they are
    read at each access.

    Attributes:
        rows: M, the rows of the layer's matrix.
        inputs: C = E[x x^T] over the positions (groups, N, N); of a lookup its diagonal (1, N), the share of each index.
        gradients: G = E[sum over positions of g g^T] (M, M), g the gradients of the network's outputs with respect to the layer's; of a
            layer that reads the table of an embedding its diagonal (M,).
        where: The positions that were looked at (images, P), int64; None of a layer whose rows belong to no example that is known.
        outputs: The layer's outputs there (images, P, M), in the network's precision; None of such a layer, which has ``inputs`` and
            ``mean`` then.
        zz: W C W^T, the second moment of the layer's outputs without the bias (M, M): much less work than C, and all that blocks of
            whole rows need.
        mean: E[x] over the positions (groups, N); beside ``inputs``.
        magnitudes: E|x| over the positions (groups, N); of a lookup the share of each index (1, N).
        uses: Where other layers hold the same weight, the statistics of each of them that runs, and of this layer alone, by their names:
            ``inputs`` and ``gradients`` are then those of ``lrp.layer_statistics.tied``.
    """

    rows: int
    inputs: Tensor | None = None
    gradients: Tensor | None = None
    where: Tensor | None = None
    outputs: Tensor | None = None
    zz: Tensor | None = None
    mean: Tensor | None = None
    magnitudes: Tensor | None = None
    uses: Mapping[str, LayerStatistics] = field(default_factory=dict)

    def products(self, weight: Tensor, block: Block) -> Tensor:
        """W C W^T (p, p) of the block's part of the layer's matrix ``weight`` (M, N) and its own part of C."""
        rows, inputs = block.rows, self.inputs
        if inputs is None:
            assert block.shape[1] == weight.shape[1]
            zz = self.zz
            assert zz is not None, "``needs`` asks for inputs or for products"
            return zz[rows][:, rows]
        return quadratic(block.of(weight), self._own(inputs, block))

    def inputs_of(self, block: Block) -> Tensor:
        """The block's own part of C (q, q), or (q,) of its diagonal."""
        inputs = self.inputs
        assert inputs is not None, "``needs`` asks for inputs"
        return self._own(inputs, block)

    def _own(self, inputs: Tensor, block: Block) -> Tensor:
        own = inputs[block.row_start * len(inputs) // self.rows][block.columns]
        return own if own.dim() == 1 else own[:, block.columns]

    def gradients_of(self, block: Block) -> Tensor:
        """The block's own part of G (p, p)."""
        gradients = self.gradients
        assert gradients is not None, "``needs`` asks for gradients"
        return gradients[block.rows][:, block.rows]

    def magnitudes_of(self, block: Block) -> Tensor:
        """The block's own part of E|x| (q,)."""
        assert self.magnitudes is not None, "``needs`` asks for magnitudes"
        group = block.row_start * len(self.magnitudes) // self.rows
        return self.magnitudes[group][block.columns]
