"""What the estimators share: their options, how outputs are read, and the arithmetic that they insist on."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lrp.batches import Batches, Inputs, call, counted, odd_layout, tensors
from lrp.errors import InputError, check_float
from lrp.estimator.moments import Moments
from lrp.inputs import counted_first
from lrp.matrices import Components
from lrp.network.arithmetic import plain_arithmetic
from lrp.network.frozen import FrozenNetwork

OUTPUTS = ("logits", "probabilities", "hellinger")
OF_MAPPING = ("logits", "last_hidden_state")  # the first of these that a network gives is its output
LARGEST, COMBINATIONS = 1024, 256  # more classes than this at each place are projected to so many combinations


@dataclass(frozen=True)
class Estimator:
    """How the change y - y_b that removing a component makes is found; y (B, K) is the network's output in eval mode.

    Outputs over places (tokens, pixels) are as many outputs of an example. Softmaxes are over the classes of each place, and the squared
    change of an example is then the mean over its places; of logits it is the sum. Places that are padding do not count. A vocabulary of
    more than 1,024 classes at many places is projected to 256 random combinations (signs, the same for all places), of the
    logits or after the softmax: squared changes stay what they are in the mean (Johnson and Lindenstrauss, 1984), and no more than
    (B, places, 256) goes on.

    Attributes:
        memory_limit: GiB of activations held at once.
        output: y are the network's outputs z ("logits"), p = softmax(z / ``temperature``) ("probabilities"), or 2 sqrt(p)
            ("hellinger"), in which the squared length of a small change is twice its Kullback-Leibler divergence: the metric of the
            outputs is the Fisher information (Amari and Nagaoka, 2000, section 2.2).
        temperature: Divides the logits.
        output_fn: Picks the output tensor of a network that returns a tuple or a dict: a callable, or its dotted path. None: a dict's
            "logits", or else its "last_hidden_state", as transformers call them.
        class_dim: The dimension of the output that runs over the classes. None: the last one of (B, K) and (B, tokens, K), and the second
            of (B, K, H, W).
    """

    name: ClassVar[str]
    differentiates: ClassVar[bool] = False  # whether it knows nothing of a layer through which no gradient flows
    ties: ClassVar[bool] = False  # whether it adds up what a component changes in all layers that hold one weight
    memory_limit: float = 1.0
    output: str = "logits"
    temperature: float = 1.0
    output_fn: Callable[[Any], Tensor] | str | None = None
    class_dim: int | None = None

    def __post_init__(self) -> None:
        check_float("estimator.memory_limit", self.memory_limit, above=0)
        check_float("estimator.temperature", self.temperature, above=0)
        if self.output not in OUTPUTS:
            raise InputError("estimator.output", self.output, f"choose one of {', '.join(OUTPUTS)}")
        if self.class_dim is not None and (isinstance(self.class_dim, bool) or not isinstance(self.class_dim, int) or not self.class_dim):
            raise InputError(
                "estimator.class_dim", self.class_dim, "must be null or a dimension other than 0, which runs over the examples"
            )
        if isinstance(self.output_fn, str):
            try:
                object.__setattr__(self, "output_fn", pkgutil.resolve_name(self.output_fn))
            except (ImportError, AttributeError, ValueError) as error:
                raise InputError("estimator.output_fn", self.output_fn, f"must be the dotted path of a function ({error})") from error
        if self.output_fn is not None and not callable(self.output_fn):
            raise InputError("estimator.output_fn", self.output_fn, "must be a function from the network's output to a tensor")

    @property
    def unread(self) -> list[str]:
        """The options that were set and that its output has no use for: logits know no temperature and no classes."""
        if self.output != "logits":
            return []
        given = (("temperature", self.temperature, 1), ("class_dim", self.class_dim, None))
        return [f"{name}={value}" for name, value, usual in given if value != usual]

    @property
    def output_name(self) -> str | None:
        """The dotted name of ``output_fn``."""
        function = self.output_fn
        return function and f"{function.__module__}.{getattr(function, '__qualname__', function)}"

    @property
    def identity(self) -> str:
        """What of the estimator its result depends on; the memory limit changes rounding alone."""
        temperature = 1 if self.output == "logits" else float(self.temperature)
        options = {"output": (self.output, "logits"), "temperature": (temperature, 1), "output_fn": (self.output_name, None)}
        options["class_dim"] = (self.class_dim, None)
        return self.name + "".join(f";{key}={value}" for key, (value, default) in options.items() if value != default)

    def __call__(
        self, model: nn.Module | FrozenNetwork, factors: Sequence[Components], images: Inputs, partial: Path | None = None
    ) -> tuple[list[Moments], float]:
        """The moments of every block's components on ``images``, as the network takes them, and the seconds that this took.

        The seconds of a killed run are included; ``partial`` is a folder for unfinished work. An InputError says where outputs are not
        finite.
        """
        raise NotImplementedError

    def contributions(self, model: nn.Module | FrozenNetwork, factors: Sequence[Components], images: Inputs) -> list[Tensor]:
        """The change of every output of every image by each component, (B, K, R) of each block.

        Raises:
            InputError: Where the estimator does not know the changes apart.
        """
        raise InputError(
            "selection", "joint", f"it adds up single changes, which estimator={self.name} does not keep; choose estimator=first_order"
        )

    def joint(
        self, model: nn.Module | FrozenNetwork, factors: Sequence[Components], images: Inputs, removed: Sequence[Sequence[Tensor]]
    ) -> Tensor | None:
        """E ||sum of the changes of a whole set||^2 for each set in ``removed`` (masks (R,), a block each), as (sets,)
        float64; None where the estimator does not know the changes apart."""
        return None

    def pick(self, result: Any) -> Tensor:
        """The output tensor (B, ...) of what the network returns, one number for an example as (B, 1).

        Raises:
            InputError: Where ``output_fn`` fails, and where the output is not a tensor (B, ...) of real numbers.
        """
        if self.output_fn is not None:
            assert not isinstance(self.output_fn, str), "``__post_init__`` has found the function"
            try:
                result = self.output_fn(result)
            except Exception as error:  # whatever the user's function raises
                name = getattr(self.output_fn, "__qualname__", self.output_fn)
                raise InputError(
                    "estimator.output_fn", name, f"it cannot read what the network returns ({type(error).__name__}: {error})"
                ) from error
        elif isinstance(result, Mapping):
            result = next((result[name] for name in OF_MAPPING if isinstance(result.get(name), Tensor)), result)
        if not isinstance(result, Tensor):
            kind = "dict" if isinstance(result, Mapping) else type(result).__name__
            raise InputError(
                "estimator.output_fn", self.output_fn, f"the network gives a {kind}; give a function that picks a tensor of it"
            )
        if what := _not_real_numbers(result):
            name = "estimator.output_fn" if self.output_fn is None else f"estimator.output_fn={self.output_name}"
            raise InputError(f"{name}: the output is {what}; give a function that picks real numbers of every example, such as logits")
        return result[:, None] if result.dim() == 1 else result

    def read(self, result: Any, mask: Tensor | None = None) -> Tensor:
        """The network's output as (B, K); ``mask`` (B, L) bool: which tokens count, in an output over L places.

        Raises:
            InputError: For probabilities of a network that has only one output, and for an output without the dimension ``class_dim``.
        """
        y = self.pick(result)
        if self.output == "logits":
            y = self._only(y, mask)
            z = y if y.dim() == 2 else self.by_place(y)
            many = z.dim() == 3 and z.shape[1] > 1 and z.shape[2] > LARGEST
            return (_project(z) if many else y).flatten(1)
        z = self.by_place(y)
        if z.shape[2] < 2:
            raise InputError("estimator.output", self.output, "the network has one output, whose softmax is constant; choose logits")
        log = (z / self.temperature).log_softmax(2)
        p = log.exp() if self.output == "probabilities" else 2 * (log / 2).exp()
        if y.dim() == 2:
            return p.flatten(1)
        if p.shape[2] > LARGEST:
            p = _project(p)
        weights = places(z, mask)
        p = torch.where(weights[..., None] > 0, p, 0) * weights.sqrt()[..., None]
        return (p if mask is None or mask.shape[1] != p.shape[1] else counted_first(p, mask)).flatten(1)

    def by_place(self, y: Tensor) -> Tensor:
        """An output (B, ...) that ``pick`` found as (B, places, K), K its classes; (B, K) has one place.

        Raises:
            InputError: For an output without the dimension ``class_dim``.
        """
        z = y.movedim(self._classes(y), -1)
        return z.reshape(len(z), -1, z.shape[-1])

    def _classes(self, y: Tensor) -> int:
        """The dimension of an output that runs over its classes.

        Raises:
            InputError: For an output without the dimension ``class_dim``.
        """
        if self.class_dim is None:
            return -1 if y.dim() < 4 else 1
        if not -y.dim() < self.class_dim < y.dim():
            shape = tuple(y.shape)
            raise InputError(
                "estimator.class_dim", self.class_dim, f"the output {shape} has the dimensions 1 to {y.dim() - 1}, or -1 for the last"
            )
        return self.class_dim

    def _only(self, y: Tensor, mask: Tensor | None) -> Tensor:
        """The output with zeros at the tokens that do not count, which come last."""
        if mask is None or y.dim() < 3:
            return y
        dim = self._classes(y)
        z = y.movedim(dim, -1)
        if z.shape[1:-1].numel() != mask.shape[1]:
            return y
        zeroed = torch.where(mask.view(*z.shape[:-1], 1), z, 0)
        return counted_first(zeroed.flatten(1, -2), mask).view(z.shape).movedim(-1, dim)

    @torch.no_grad()
    def outputs(self, model: nn.Module, images: Inputs) -> Tensor:
        """y of a network as it stands, (B, K) float64."""
        with plain_arithmetic(tensors(images)[0].device):
            return torch.cat([self.read(call(model, batch), counted(batch)).double() for batch in Batches.of(images).split(64)])


def places(z: Tensor, mask: Tensor | None) -> Tensor:
    """What each place of outputs (B, places, K) weighs in the mean over an example's: (B, places), 0 where a token does not count."""
    count = z.shape[1]
    weights = mask if mask is not None and mask.shape[1] == count else torch.ones(1, count, dtype=torch.bool)
    weights = weights.to(z)
    return (weights / weights.sum(1, keepdim=True).clamp(min=1)).expand(len(z), -1)


def _project(z: Tensor) -> Tensor:
    """Random combinations of the classes at each place: (B, places, K) to (B, places, 256)."""
    return z @ _combinations(z.shape[2], z.dtype, z.device)


@lru_cache(maxsize=2)
def _combinations(classes: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Random combinations of so many classes, (classes, 256): signs over sqrt(256), the same at each call."""
    with torch.inference_mode(False):
        signs = torch.randint(0, 2, (classes, COMBINATIONS), generator=torch.Generator().manual_seed(0), dtype=torch.int8)
        return (2 * signs - 1).to(device, dtype) / COMBINATIONS**0.5


def _not_real_numbers(result: Tensor) -> str | None:
    """What a tensor is that is not real numbers (B, ...), one beside the other; None of one that is."""
    kind = odd_layout(result)
    if kind is not None:
        return f"a {kind} tensor"
    if result.dim() == 0:
        return "a single number"
    return None if result.is_floating_point() else f"numbers of type {str(result.dtype).removeprefix('torch.')}"
