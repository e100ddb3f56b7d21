"""Columns of a matrix sorted into groups of given sizes, so that each group is close to few dimensions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

ROUNDS = 30  # of assignment, at most; most stop after a few
SWAPS = 6  # that are tried where assigning all channels anew gains nothing
ENOUGH = 1e-9  # of the error: less is rounding
TINY = 1e-300  # in place of a zero that is divided by


class Points:
    """Channels of ``kernel`` columns of T (p, N) each, to be grouped so that ||sum over groups of (T_b - U_b U_b^T T_b)||, in the metric C
    of the columns, is small; U_b are the first ``rank`` components of T_b C_bb T_b^T, which decompositions of blocks take.

    Attributes:
        T: (p, N) float64.
        C: (N, N); None: the identity.
        kernel: Columns per channel.
        sizes: Channels of each group.
        rank: Of a group.
    """

    def __init__(self, T: Tensor, C: Tensor | None, kernel: int, sizes: Sequence[int], rank: int) -> None:
        if C is not None and C.dim() == 1:
            T, C = T * C.sqrt(), None
        self.T, self.C, self.kernel, self.sizes, self.rank = T, C, kernel, list(sizes), rank
        self.channels = T.shape[1] // kernel
        self.seats = torch.repeat_interleave(torch.arange(len(self.sizes)), torch.tensor(self.sizes))
        if C is None:
            self.own = None
        else:  # C of each channel (channels, kernel, kernel)
            own = C.view(self.channels, kernel, self.channels, kernel)
            self.own = own.diagonal(dim1=0, dim2=2).permute(2, 0, 1)

    def _by_channel(self, values: Tensor) -> Tensor:
        """(p, N) as (p, channels, kernel)."""
        return values.view(len(values), self.channels, self.kernel)

    def _weighed(self, D: Tensor) -> Tensor:
        return D if self.C is None else D @ self.C

    def fit(self, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the components of the groups leave of T (p, N), and the components (p, rank) of each group."""
        D, bases = torch.zeros_like(self.T), []
        for b in range(len(self.sizes)):
            columns = (labels == b).repeat_interleave(self.kernel).nonzero()[:, 0]
            part = self.T[:, columns]
            if self.C is None and len(part) > part.shape[1]:
                U = torch.linalg.svd(part, full_matrices=False).U[:, : self.rank]
            else:
                P = part @ part.T if self.C is None else part @ self.C[columns][:, columns] @ part.T
                U = torch.linalg.eigh(P).eigenvectors.flip(1)[:, : self.rank]
            D[:, columns] = part - U @ (U.T @ part)
            bases.append(U)
        return D, bases

    def error(self, labels: Tensor) -> float:
        """The squared norm of what is left, of all groups together."""
        D, _ = self.fit(labels)
        return float((D * self._weighed(D)).sum())

    def costs(self, D: Tensor, bases: Sequence[Tensor]) -> Tensor:
        """(channels, groups): what each channel adds to the error where it joins a group, the components and all other channels as they
        are; up to a number that is the same for all groups. Without C this is the squared distance from the group's subspace."""
        H, found = self._weighed(D), []
        before = self._by_channel(D)
        if self.own is not None:
            before = torch.einsum("pck,ckl->pcl", before, self.own)
        for U in bases:
            R = self._by_channel(self.T - U @ (U.T @ self.T))
            weighed = R if self.own is None else torch.einsum("pck,ckl->pcl", R, self.own)
            cross = (R * (self._by_channel(H) - before)).sum((0, 2))
            found.append((R * weighed).sum((0, 2)) + 2 * cross)
        return torch.stack(found, 1)

    def assign(self, costs: Tensor) -> Tensor:
        """The labels (channels,) of least cost (channels, groups) where each group has its number of seats."""
        from scipy.optimize import linear_sum_assignment  # a second to load beside torch, for this blocking alone

        rows, columns = linear_sum_assignment(costs[:, self.seats].numpy())
        labels = torch.empty(self.channels, dtype=torch.int64)
        labels[torch.from_numpy(rows)] = self.seats[torch.from_numpy(columns)]
        return labels

    def descend(self, labels: Tensor) -> tuple[Tensor, list[float]]:
        """Components and labels in turn, for as long as the error falls; the labels, and the errors on the way, each below the last."""
        D, bases = self.fit(labels)
        errors = [float((D * self._weighed(D)).sum())]
        for _ in range(ROUNDS):
            for candidate in self._candidates(labels, self.costs(D, bases)):
                other, others = self.fit(candidate)
                error = float((other * self._weighed(other)).sum())
                if error < errors[-1] * (1 - ENOUGH):
                    labels, D, bases = candidate, other, others
                    errors.append(error)
                    break
            else:
                break
        return labels, errors

    def _candidates(self, labels: Tensor, costs: Tensor) -> Iterator[Tensor]:
        """All channels assigned anew, and then the pairs whose exchange seems to gain most: with several at once a cost is no longer what
        it was, where C joins the channels."""
        all_new = self.assign(costs)
        if not torch.equal(all_new, labels):
            yield all_new
        gain = costs - costs.gather(1, labels[:, None])
        pairs = gain[:, labels]
        pairs = pairs + pairs.T
        pairs[labels[:, None] >= labels] = 0
        for at in pairs.flatten().argsort()[:SWAPS].tolist():
            one, other = divmod(at, self.channels)
            if pairs[one, other] < 0:
                swapped = labels.clone()
                swapped[[one, other]] = labels[[other, one]]
                yield swapped

    def starts(self, count: int) -> Iterator[Tensor]:
        """So many labels to start from: contiguous groups; groups by spectral co-clustering of the sizes of T's entries (Dhillon, 2001),
        and by the affinity of independent subspaces (Costeira and Kanade, 1998: the shape interaction matrix); then random ones."""
        yield self.seats.clone()
        if count > 1:
            yield self._balanced(self._co_clustering())
        if count > 2:
            yield self._balanced(self._subspaces())
        generator = torch.Generator().manual_seed(0)
        for _ in range(count - 3):
            yield self.seats[torch.randperm(self.channels, generator=generator)]

    def _local(self) -> Tensor:
        """T with the root of C of each channel alone, (p, channels, kernel)."""
        T = self._by_channel(self.T)
        return T if self.own is None else torch.einsum("pck,ckl->pcl", T, _roots(self.own))

    def _co_clustering(self) -> Tensor:
        """(channels, l): the singular vectors of the bipartite graph of rows and channels."""
        energy = torch.linalg.vector_norm(self._local(), dim=2)
        across, along = energy.sum(1).clamp(min=TINY).sqrt(), energy.sum(0).clamp(min=TINY).sqrt()
        Vh = torch.linalg.svd(energy / across[:, None] / along, full_matrices=False).Vh
        wanted = max(1, (len(self.sizes) - 1).bit_length())
        return (Vh[1 : 1 + wanted] / along).T if len(Vh) > 1 else (Vh / along).T

    def _subspaces(self) -> Tensor:
        """(channels, groups): the leading eigenvectors of how strongly channels depend on each other in the row space."""
        T = self._local().flatten(1)
        values, U = torch.linalg.eigh(T @ T.T)
        live = int((values > 1e-9 * values[-1].clamp(min=TINY)).sum())
        rank = max(1, min(self.rank * len(self.sizes), live))
        V = (U[:, -rank:] / values[-rank:].clamp(min=TINY).sqrt()).T @ T
        affinity = (V.T @ V).view(self.channels, self.kernel, self.channels, self.kernel).square().sum((1, 3))
        degree = affinity.sum(1).clamp(min=TINY).sqrt()
        vectors = torch.linalg.eigh(affinity / degree[:, None] / degree).eigenvectors[:, -len(self.sizes) :]
        return vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp(min=TINY)

    def _balanced(self, places: Tensor) -> Tensor:
        """Labels by k-means with seats, from centres that are far from each other."""
        centres = places[torch.linalg.vector_norm(places - places.mean(0), dim=1).argmax()][None]
        while len(centres) < len(self.sizes):
            far = torch.cdist(places, centres).amin(1).argmax()
            centres = torch.cat([centres, places[far][None]])
        labels = self.seats
        for _ in range(10):
            found = self.assign(torch.cdist(places, centres).square())
            if torch.equal(found, labels):
                break
            labels = found
            centres = torch.stack([places[labels == b].mean(0) for b in range(len(self.sizes))])
        return labels

    def best(self, count: int) -> tuple[Tensor, list[float]]:
        """The labels of the least error from so many starts, and the errors to which each of them led; of equal ones the first."""
        ends = [self.descend(labels) for labels in self.starts(count)]
        errors = [errors[-1] for _, errors in ends]
        return ends[min(range(len(ends)), key=errors.__getitem__)][0], errors


def _roots(matrices: Tensor) -> Tensor:
    """The symmetric roots of positive matrices (n, k, k)."""
    values, vectors = torch.linalg.eigh(matrices)
    return (vectors * values.clamp(min=0).sqrt()[:, None]) @ vectors.mT


def in_order(labels: Tensor) -> tuple[int, ...] | None:
    """The channels group by group, in each as they come; None where that is how they are."""
    order = labels.argsort(stable=True)
    return None if torch.equal(order, torch.arange(len(order))) else tuple(order.tolist())
