"""What layers read and how the network's outputs react to theirs: second moments on calibration images."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from lrp.candidates import Candidates
from lrp.errors import InputError
from lrp.layers import LowRank, LowRankLinear
from lrp.matrices import Block
from lrp.scoring.estimator import layer_input, plain_arithmetic

CHUNK = 128  # images that run at once
GRADIENT_IMAGES = 2048  # a multiple of CHUNK: G has few entries, and a backward pass is slow
PANEL = 512  # columns of a second moment that are found at once
ROWS = 8192  # samples that are summed in single precision before they join a sum in double
SMALL_MAP = 64  # positions
WORTHWHILE = 0.7  # share of the products that have to be computed, below which picking out columns takes less time than it saves


@dataclass(frozen=True)
class LayerStatistics:
    """Of one layer ``inputs``, C = E[x x^T] over sampled positions (groups, N, N), or, which is much less work and all that blocks
    of whole rows need, ``zz`` = W C W^T, the second moment of its outputs without the bias (M, M); and ``gradients``, G = E[sum over positions
    of g g^T] (M, M), g the gradients of the network's outputs with respect to the layer's; float64 on the CPU, None where it
    was not asked for. ``where``: the positions that were looked at (images, P), ``outputs`` the layer's outputs there (images,
    P, M) in the network's precision. ``rows``: M."""

    rows: int
    inputs: Tensor | None = None
    gradients: Tensor | None = None
    where: Tensor | None = None
    outputs: Tensor | None = None
    zz: Tensor | None = None

    def products(self, weight: Tensor, block: Block) -> Tensor:
        """W C W^T (p, p) of the block's part of the layer's matrix ``weight`` (M, N) and its own part of C."""
        rows, columns = slice(block.row_start, block.row_stop), slice(block.col_start, block.col_stop)
        if self.inputs is None:
            assert block.shape[1] == weight.shape[1]
            return self.zz[rows, rows]
        group = block.row_start * len(self.inputs) // self.rows
        W = block.of(weight)
        return W @ self.inputs[group, columns, columns] @ W.T

    def gradients_of(self, block: Block) -> Tensor:
        """The block's own part of G (p, p)."""
        rows = slice(block.row_start, block.row_stop)
        return self.gradients[rows, rows]


@dataclass(frozen=True)
class Positions:
    """Which positions of a layer's output are looked at: as many an image as make ``samples`` of all images, at least one, drawn at
    random without replacement, the same for every network that is compared. ``counts``: of each layer the positions it has for
    one image."""

    counts: Mapping[str, int]
    images: int
    samples: int

    def of(self, name: str) -> Tensor:
        """(images, P) int64."""
        count, most = self.counts[name], -(-self.samples // self.images)
        if count <= most:
            return torch.arange(count).expand(self.images, count)
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        return torch.rand(self.images, count, generator=generator).topk(most, dim=1).indices


def columns(module: nn.Module, x: Tensor, where: Tensor) -> Tensor:
    """What a layer multiplies at these positions (B, P) of its output: (B * P, groups, N), N channel-major as in its matrix."""
    each = torch.arange(len(x), device=x.device)[:, None]
    where = where.to(x.device)
    if isinstance(module, (nn.Linear, LowRankLinear)):
        return x.reshape(len(x), -1, x.shape[-1])[each, where].reshape(-1, 1, x.shape[-1])
    around = module._around if isinstance(module, LowRank) else module._reversed_padding_repeated_twice
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x, around, mode=mode) if any(around) else x
    dims = len(module.kernel_size)
    sizes = [
        (x.shape[2 + d] - module.dilation[d] * (module.kernel_size[d] - 1) - 1) // module.stride[d] + 1 for d in range(dims)
    ]
    strides = x.stride()
    windows = x.as_strided(
        (len(x), *sizes, x.shape[1], *module.kernel_size),
        (strides[0], *(strides[2 + d] * module.stride[d] for d in range(dims)), strides[1], *(strides[2 + d] * module.dilation[d] for d in range(dims))),
        x.storage_offset(),
    )
    return windows[(each, *torch.unravel_index(where, sizes))].reshape(where.numel(), module.groups, -1)


def outputs(module: nn.Module, z: Tensor, where: Tensor) -> Tensor:
    """A layer's outputs at these positions (B, P): (B * P, M)."""
    flat = z.reshape(len(z), -1, z.shape[-1]) if isinstance(module, nn.Linear) else z.flatten(2).transpose(1, 2)
    return flat[torch.arange(len(z), device=z.device)[:, None], where.to(z.device)].reshape(where.numel(), -1)


def gram(x: Tensor) -> Tensor:
    """x^T x of each group (groups, s, N), which is symmetric: a wide one by its upper panels alone, in little over half the time."""
    N = x.shape[2]
    if N < 4 * PANEL:
        return x.mT @ x
    result = x.new_empty(len(x), N, N)
    for start in range(0, N, PANEL):
        panel = slice(start, start + PANEL)
        part = x[:, :, panel].mT @ x[:, :, start:]
        result[:, panel, start:] = part
        result[:, start:, panel] = part.mT
    return result


def inside(module: nn.Module, x: Tensor, positions: int) -> Tensor | None:
    """Which of a layer's columns read its input ``x`` (B, ...) rather than zeros around it, at each position: (positions, N) bool,
    the same in all groups; None for a map so large that its edges hardly count."""
    if positions > SMALL_MAP:
        return None
    read = columns(module, torch.ones_like(x[:1]), torch.arange(positions)[None])
    return read[:, 0] != 0


class Sums:
    """Sums over samples of x x^T (groups, N, N), z x^T (M, N; a group's rows with its own x), x and z.

    Products are summed over some thousand samples in single precision and then in double. ``inside`` (positions, N): on small maps
    most of what the positions at the edge read are the zeros around, and their products are left out.
    """

    def __init__(self, inside: Tensor | None = None) -> None:
        self.count = 0
        self.xx = self.zx = self.x = self.z = None
        self._waiting: list[tuple[Tensor, Tensor | None, Tensor | None]] = []
        self._rows = 0
        self._kind = None
        if inside is not None and float(inside.double().mean(1).square().mean()) < WORTHWHILE:
            self._patterns, self._kind = inside.unique(dim=0, return_inverse=True)

    def add(self, x: Tensor, z: Tensor | None = None, where: Tensor | None = None) -> None:
        """Samples x (s, groups, N), z (s, M) and, needed with ``inside``, the positions (s,) where they are."""
        kind = torch.promote_types(x.dtype, torch.float32)  # half precision holds no sums
        self._waiting.append((x.to(kind), None if z is None else z.to(kind), where))
        self._rows += len(x)
        if self._rows >= (ROWS if self._kind is None else ROWS * min(len(self._patterns), 4)):
            self.flush()

    def flush(self) -> Sums:
        """Everything that was added is in the sums."""
        if not self._waiting:
            return self
        xs, zs, places = zip(*self._waiting)
        self._waiting, self._rows = [], 0
        self.count += sum(map(len, xs))
        self._sum("x", sum(x.double().sum(0) for x in xs))
        if zs[0] is not None:
            self._sum("z", sum(z.double().sum(0) for z in zs))
        with plain_arithmetic(xs[0].device):
            if self._kind is None:
                self._products(xs, zs, slice(None))
                return self
            kinds = [self._kind[where.to(self._kind.device)] for where in places]
            for k, pattern in enumerate(self._patterns):
                rows = [(kind == k).nonzero()[:, 0] for kind in kinds]
                read = pattern.nonzero()[:, 0]
                parts = [x[at][:, :, read] for x, at in zip(xs, rows)]
                self._products(parts, [None if z is None else z[at] for z, at in zip(zs, rows)], read)
        return self

    def _products(self, xs: Sequence[Tensor], zs: Sequence[Tensor | None], read: Any) -> None:
        x = torch.cat(tuple(xs)).transpose(0, 1)  # (groups, s, N)
        self._sum("xx", gram(x), read)
        if zs[0] is not None:
            parts = torch.cat(tuple(zs)).unflatten(1, (len(x), -1)).transpose(0, 1)  # (groups, s, M of the group)
            self._sum("zx", (parts.mT @ x).flatten(0, 1), read)

    def _sum(self, name: str, value: Tensor, read: Any = slice(None)) -> None:
        """Add to a sum; of products only to the columns ``read``."""
        before = getattr(self, name)
        if isinstance(read, slice):
            setattr(self, name, value.double() if before is None else before.add_(value))
            return
        if before is None:
            N = len(self._patterns[0])
            before = torch.zeros(*value.shape[:-2], N if name == "xx" else value.shape[-2], N, dtype=torch.float64, device=value.device)
            setattr(self, name, before)
        if name == "xx":
            before[:, read[:, None], read] += value
        else:
            before[:, read] += value


def layer_calls(model: nn.Module, names: Iterable[str], watch: Callable[[str, nn.Module, Tensor, Tensor], Tensor | None]) -> Any:
    """Hooks that show each call of these layers to ``watch(name, module, input, output)``."""
    handles = []
    for name in names:
        module = model.get_submodule(name)

        def hook(module: nn.Module, args: Any, kwargs: Any, output: Tensor, name: str = name) -> Tensor | None:
            return watch(name, module, layer_input(args, kwargs), output)

        handles.append(module.register_forward_hook(hook, with_kwargs=True))
    return handles


def gather(
    model: nn.Module,
    candidates: Candidates,
    inputs: Tensor,
    needs: Iterable[str],
    read: Callable[[Any], Tensor],
    samples: int = 65536,
) -> dict[str, LayerStatistics]:
    """The statistics of every layer to compress on the images ``inputs`` (B, ...). ``needs``: "inputs" (C), "products" (zz),
    "gradients", "outputs". ``read`` turns what the network returns into (B, K).

    The gradients are of the first 2,048 images, of one random combination of the outputs an image (signs +-1), which gives
    E[sum_k g_k g_k^T] without bias. Raises InputError where values are not finite or the first dimension of a layer's values
    does not run over the images.
    """
    needs, names = set(needs), list(candidates.matrices)
    if not needs:
        return {}
    with torch.inference_mode(False):
        twin = copy.deepcopy(model).eval().requires_grad_(False)
    for module in twin.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    where = {name: Positions(candidates.positions, len(inputs), samples).of(name) for name in names}
    sums = {name: Sums() for name in names}
    products = {name: Sums() for name in names}
    held: dict[str, list[Tensor]] = {name: [] for name in names}
    squares: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    for start in tqdm(range(0, len(inputs), CHUNK), desc="layer statistics", unit="batch", leave=False, disable=None):
        batch = inputs[start : start + CHUNK]
        calls: dict[str, Tensor] = {}
        with_gradients = "gradients" in needs and start < GRADIENT_IMAGES

        def watch(name: str, module: nn.Module, x: Tensor, z: Tensor) -> Tensor | None:
            if len(x) != len(batch):
                raise InputError(
                    f"layer {name}: the first dimension of its values does not run over the images, so decomposition=svd and "
                    "compensation=none are needed"
                )
            at = where[name][start : start + CHUNK]
            with torch.no_grad():
                if "inputs" in needs:
                    sums[name].add(columns(module, x.detach(), at))
                sampled = outputs(module, z.detach(), at) if needs & {"products", "outputs"} else None
                if "products" in needs:
                    products[name].add((sampled if module.bias is None else sampled - module.bias)[:, None])
                if "outputs" in needs:
                    held[name].append(sampled.unflatten(0, at.shape))
            if with_gradients:
                calls[name] = z.requires_grad_() if z.is_leaf else z
                return z.clone()  # what follows may write into it
            return None

        handles = layer_calls(twin, names, watch)
        try:
            with torch.inference_mode(False), plain_arithmetic(inputs.device), torch.set_grad_enabled(with_gradients):
                y = read(twin(batch.clone()))
                if with_gradients:
                    if calls and not y.requires_grad:
                        raise InputError(
                            "the network's output carries no gradient, so decomposition=two_sided and compensation.metric=gradient cannot "
                            "be used; decomposition=activation and compensation.metric=plain can"
                        )
                    signs = (2 * torch.randint(0, 2, y.shape, generator=generator) - 1).to(y)
                    grads = torch.autograd.grad((y * signs).sum(), list(calls.values()), allow_unused=True)
                    for (name, z), grad in zip(calls.items(), grads):
                        linear = isinstance(twin.get_submodule(name), nn.Linear)
                        rows = torch.zeros_like(z) if grad is None else grad
                        rows = rows.reshape(-1, rows.shape[-1]) if linear else rows.movedim(1, -1).reshape(-1, rows.shape[1])
                        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
                        square = (rows.T @ rows).double()
                        squares[name] = square if name not in squares else squares[name] + square
        finally:
            for handle in handles:
                handle.remove()
    result = {}
    for name in names:
        C = sums[name].flush().xx.div_(sums[name].count).cpu() if "inputs" in needs else None
        G = (squares[name] / min(len(inputs), GRADIENT_IMAGES)).cpu() if "gradients" in needs else None
        zz = products[name].flush().xx[0].div_(products[name].count).cpu() if "products" in needs else None
        if any(part is not None and not bool(torch.isfinite(part).all()) for part in (C, G, zz)):
            raise InputError(f"layer {name}: its inputs or gradients on the calibration images are not finite, so it cannot be decomposed")
        z = torch.cat(held[name]) if "outputs" in needs else None
        result[name] = LayerStatistics(candidates.matrices[name].shape[0], C, G, where[name], z, zz)
    return result
