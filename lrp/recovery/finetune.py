"""The pruned network trained on labelled images, with the dense one as teacher if asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.dataset.base import Data, Part
from lrp.errors import InputError, check_bool, check_float, check_int, first_line
from lrp.files import sha256, write_whole
from lrp.identity import computes
from lrp.layer.build import find_kind
from lrp.recovery.context import Context
from lrp.training import Loss, Sgd, cross_entropy


@dataclass(frozen=True)
class FinetuneRecovery(Sgd):
    """Train all parameters, the factors at the ranks that pruning gave them; weight decay acts on each factor.

    Attributes:
        epochs: Passes over the images.
        lr: The peak of the one-cycle learning rate.
        batch_size: Images per step.
        distill: In [0, 1]: the share of the loss that is T^2 KL(teacher || network) of the outputs softened by T; the rest is the
            cross entropy with the labels (Hinton, Vinyals and Dean, 2015). The teacher is the dense network in eval mode and sees
            the same augmented images.
        temperature: T.
        images: How many images of the training part are used, drawn by the seed; None: all.
        hold_out: False trains on the validation images too, once everything has been chosen on them: no epoch has a validation
            accuracy then.
    """

    name: ClassVar[str] = "finetune"
    changes: ClassVar[bool] = True
    option = "recovery"
    fewest = 1
    swing = 0.0

    epochs: int = 20
    lr: float = 0.05
    batch_size: int = 128
    distill: float = 0.0
    temperature: float = 4.0
    images: int | None = None
    hold_out: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.distill, bool) or not isinstance(self.distill, Real) or not 0 <= self.distill <= 1:
            raise InputError("recovery.distill", self.distill, "must be a number in [0, 1]")
        check_float("recovery.temperature", self.temperature, above=0)
        if self.images is not None:
            check_int("recovery.images", self.images, 2)
        check_bool("recovery.hold_out", self.hold_out)

    @property
    def trains_on_validation(self) -> bool:
        """Whether the validation images are trained on."""
        return not self.hold_out

    def __call__(self, model: nn.Module, context: Context) -> None:
        """Train ``model`` in place; modes are afterwards as they were, weights in the usual memory format.

        ``context.unfinished`` keeps the state after each epoch, the last included: what is finished is not trained again, and
        what was killed goes on and gives what an undisturbed training gives (on a CPU bit for bit). Beside it lies a table
        of the epochs, .csv; the validation accuracy in it decides nothing.

        Raises:
            InputError: Without labelled images, without the teacher that ``distill`` needs, without a parameter to train, and for a
                loss that diverges.
        """
        data, teacher = context.data, context.teacher if self.distill else None
        if data is None:
            raise InputError("recovery=finetune: it needs labelled training images, which only python -m lrp.run has")
        if self.distill and teacher is None:
            raise InputError("recovery.distill", self.distill, "must be 0 where there is no dense network as teacher")
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise InputError("recovery=finetune: there is nothing to train, no parameter of the network requires a gradient")
        part = self._part(data, context.seed)
        states = [network.state_dict() for network in (model, teacher) if network is not None]
        identity = [self.identity, str(context.seed), str(model), data.fingerprint(), context.output, *computes(model.modules())]
        identity = sha256([*identity, *(each for state in states for pair in state.items() for each in pair)])
        modes = {module: module.training for network in (model, teacher) if network is not None for module in network.modules()}
        loss = cross_entropy if teacher is None else distillation(teacher.eval(), self.distill, self.temperature, context.pick)
        memory_format = torch.contiguous_format if any(map(_breaks, model.modules())) else torch.channels_last
        try:
            _arrange(model, memory_format)
            self.fit(model, data, part, context.seed, context.unfinished, context.pick, loss, identity, memory_format, self.hold_out)
        except InputError:
            raise
        except ValueError as error:  # batch norm in train mode refuses a single value a channel
            raise InputError(f"recovery=finetune: {first_line(error)}") from error
        finally:
            _arrange(model, torch.contiguous_format)
            for module, mode in modes.items():
                module.training = mode

    def _keep(self, unfinished: Path, state: dict[str, Any], identity: str) -> None:
        table = pd.DataFrame(state["history"])
        write_whole(unfinished.with_suffix(".csv"), lambda path: table.to_csv(path, index=False))
        super()._keep(unfinished, state, identity)

    def _part(self, data: Data, seed: int) -> Part:
        """The training images used.

        Raises:
            InputError: For more images than there are.
        """
        whole = data.train if self.hold_out else data.undivided()
        if self.images is None:
            return whole
        if self.images > len(whole):
            raise InputError(
                "recovery.images",
                self.images,
                f"the training {'part' if self.hold_out else 'set'} of {data.name} holds {len(whole)} images",
            )
        return whole.take(torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))[: self.images])


def distillation(teacher: nn.Module, share: float, temperature: float, pick: Callable[[Any], Tensor] | None) -> Loss:
    """share T^2 KL(softmax(z_t / T) || softmax(z / T)) + (1 - share) cross entropy, z and z_t the logits of the network and of the
    teacher, T the temperature; the mean over the batch. Source: Hinton, Vinyals and Dean, 2015."""

    def loss(logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        with torch.no_grad():
            taught = teacher(images) if pick is None else pick(teacher(images))
        ours, theirs = (F.log_softmax(z / temperature, dim=1) for z in (logits, taught.to(logits)))
        value = share * temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        return value if share == 1 else value + (1 - share) * F.cross_entropy(logits, labels)

    return loss


def _arrange(model: nn.Module, memory_format: torch.memory_format) -> None:
    """Keep the convolutions' weights in this order; the parameters stay the same objects."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=memory_format)


def _breaks(module: nn.Module) -> bool:
    kind = find_kind(module)
    return kind is not None and kind.breaks_channels_last(module)
