"""What is gathered of one layer."""

from __future__ import annotations

import zlib
from collections.abc import Sequence, Set
from typing import Any

import torch
from torch import Tensor

from lrp.errors import InputError
from lrp.group import Group
from lrp.layer.build import kind_of
from lrp.layer_statistics.base import LayerStatistics
from lrp.layer_statistics.positions import Positions, columns, kept, kept_rows, outputs, scattered
from lrp.layer_statistics.shrinkage import shrunk
from lrp.layer_statistics.sums import Sums
from lrp.matrices import LayerMatrix
from lrp.shelf import Shelf, joined


class WatchedLayer:
    """What is gathered of one layer, batch by batch.

    Attributes:
        needs: What of it is asked for.
        count: How many positions it has for one image.
        share: Of its rows that are looked at, where they belong to no image.
        calls: How often it ran.
        where: The positions that are looked at (images, P); None of a layer whose rows belong to no image that is known: it runs several
            times, or on another number of rows than the images have (experts, windows, regions). Rows are drawn from each call then.
        inputs: Sums over these positions of x x^T.
        magnitudes: The sum over these positions of |x| (groups, N), and over how many; None before the first.
        products: Sums over these positions of z z^T, z without the bias.
        outputs: The outputs there, (B, P, M) for each batch.
        gradients: The sum over all positions of g g^T (M, M), or of its diagonal (M,); None before the first.
        differentiated: At how many positions, of all images together.
    """

    def __init__(
        self, name: str, module: Any, positions: Positions, tokens: Tensor | None, needs: Set[str], apart: bool, matrix: LayerMatrix,
        part: slice,
    ) -> None:  # fmt: skip
        self.name, self.module, self.count, self.needs = name, module, positions.counts[name], needs
        if matrix.uses:  # what the sum of several metrics is made of
            self.needs = needs = {"inputs", *needs & {"gradients"}}
        self.diagonal = matrix.lookup and not kind_of(module).lookup  # as many rows as there are words
        self.lookup = kind_of(module).lookup
        self.where = positions.of(name, tokens)[part] if apart and not self.lookup else None
        self.first = part.start
        if self.where is None and "outputs" in needs:  # which could not be told apart again: what the fit needs is found from its inputs
            self.needs = {*needs, "inputs"}
        self.share = positions.share(name, tokens)  # of the positions that are looked at
        self.calls = self.samples = 0
        self.generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        self.inputs, self.products = Sums(), Sums()
        self.counts: Tensor | None = None
        self.magnitudes: Tensor | None = None
        self.outputs: list[Any] = []  # tensors, or handles of the shelf
        self.gradients: Tensor | None = None
        self.differentiated = 0.0

    @torch.no_grad()
    def look(self, x: Tensor, z: Tensor, images: slice, mask: Tensor | None, shelf: Shelf) -> None:
        """What the layer reads, ``x``, and gives, ``z``, for some images, where it counts by ``mask``.

        Raises:
            Scattered: Where rows cannot be told apart by image.
        """
        if self.where is None:
            if z.numel():  # or it is an expert that no token chose
                self.calls += 1
                self._look_at_rows(x, z, mask)
            return
        self.calls += 1
        at = self.where[images]
        if not kind_of(self.module).by_example(x, len(at), self.count):
            raise Scattered([self.name])
        keep = kept(mask, at, self.count, x)
        rows = slice(None) if keep is None else keep
        self._look_at_inputs(x.detach(), at, rows)
        if not self.needs & {"products", "outputs"}:
            return
        sampled = outputs(self.module, z.detach(), at)
        if "products" in self.needs:
            self.products.add((sampled if self.module.bias is None else sampled - self.module.bias)[rows, None])
        if "outputs" in self.needs:
            self.outputs.append(shelf.put(sampled.unflatten(0, at.shape)))

    def _look_at_inputs(self, x: Tensor, at: Tensor, rows: Tensor | slice = slice(None)) -> None:
        if not self.needs & {"inputs", "magnitudes"}:
            return
        read = columns(self.module, x, at)[rows]
        if "inputs" in self.needs:
            self.inputs.add(read)
        if "magnitudes" in self.needs:
            total = read.double().abs().sum(0)
            self.magnitudes = total if self.magnitudes is None else self.magnitudes.add_(total)
            self.samples += len(read)

    def _look_at_rows(self, x: Tensor, z: Tensor, mask: Tensor | None) -> None:
        keep = None if mask is None else kept_rows(mask, x, kind_of(self.module).positions(self.module, z))
        if self.lookup:
            found = kind_of(self.module).count(self.module, x if keep is None else x.flatten()[keep])
            self.counts = found if self.counts is None else self.counts + found
            return
        x, z, at = scattered(self.module, x.detach(), z.detach(), self.share, self.generator, keep)
        if not len(x):
            return
        self._look_at_inputs(x, at)
        if "products" in self.needs:
            sampled = outputs(self.module, z, at)
            self.products.add((sampled if self.module.bias is None else sampled - self.module.bias)[:, None])

    def add_gradients(self, z: Tensor, grad: Tensor | None, passes: int) -> None:
        """The gradient with respect to the output ``z`` of some images, one of so many ``passes``; None where nothing depends on it."""
        features = kind_of(self.module).features_last(torch.zeros_like(z) if grad is None else grad)
        rows = features.reshape(-1, features.shape[-1])
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        square = rows.square().sum(0) if self.diagonal else rows.T @ rows
        self.gradients = square.double() if self.gradients is None else self.gradients.add_(square)
        self.differentiated += len(rows) / passes

    def begin(self, start: int) -> None:
        """A batch comes that begins at this image of all: what is drawn of its rows depends on nothing that came before."""
        self.generator.manual_seed(zlib.crc32(self.name.encode()) + start)

    def flush(self) -> None:
        """What was looked at is in the sums."""
        self.inputs.sum_up()
        self.products.sum_up()

    def join(self, group: Group) -> None:
        """Add up what the processes of a group have gathered; each keeps the outputs of its own images."""
        counts = torch.tensor([self.calls, self.samples, self.differentiated], dtype=torch.float64)
        total, *found = group.total([counts, self.counts, self.magnitudes, self.gradients])
        assert total is not None, "each process has given its counts"
        self.calls, self.samples, self.differentiated = int(total[0]), int(total[1]), float(total[2])
        self.counts, self.magnitudes, self.gradients = found
        self.inputs.total(group)
        self.products.total(group)

    def statistics(self, images: int, shelf: Shelf) -> LayerStatistics:
        """What was gathered, the gradients of so many images; what is large lies on the shelf.

        Raises:
            InputError: Where it is not finite.
        """
        C, G, mean, magnitudes = None, None, None, None
        zz = _mean(self.products)[0] if "products" in self.needs and not self.lookup else None
        if self.counts is not None:
            shares = (self.counts + 1).double().cpu()
            C = magnitudes = shares[None] / shares.sum()
        elif "inputs" in self.needs:
            C = _mean(self.inputs)
            mean = self.inputs.x.div(self.inputs.count).cpu() if self.inputs.x is not None else None
        if self.magnitudes is not None:
            magnitudes = self.magnitudes.div_(self.samples).cpu()
        if "gradients" in self.needs:
            if self.gradients is None:  # it did not run on the first images
                rows = kind_of(self.module).rows(self.module)
                self.gradients = torch.zeros(*[rows] * (1 if self.diagonal else 2), dtype=torch.float64)
            G, self.gradients = self.gradients.div_(images).cpu(), None
            G = G if self.diagonal else shrunk(G, round(self.differentiated))
        if any(part is not None and not bool(torch.isfinite(part).all()) for part in (C, G, zz, magnitudes)):
            raise InputError(
                f"layer {self.name}: its inputs or gradients on the calibration images are not finite, so it cannot be decomposed"
            )
        z = joined(self.outputs) if self.outputs else None
        if z is None and self.where is not None and "outputs" in self.needs:  # this process has no image
            z = torch.empty(*self.where.shape, kind_of(self.module).rows(self.module))
        C, G, zz = (None if part is None else shelf.put(part) for part in (C, G, zz))
        return LayerStatistics(kind_of(self.module).rows(self.module), C, G, self.where, z, zz, mean, magnitudes)


class Scattered(Exception):
    """Layers whose rows belong to no image that is known."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names


def _mean(sums: Sums) -> Tensor:
    """The mean of x x^T (groups, N, N) over all that was added."""
    total = sums.flush().xx
    assert total is not None, "there is at least one batch"
    return total.div_(sums.count).cpu()
