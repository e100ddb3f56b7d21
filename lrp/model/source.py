"""Where a network comes from: a checkpoint, or a training that is done once and cached."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import save_file
from torch import Tensor, nn

from lrp.dataset.base import Data
from lrp.errors import InputError, first_line
from lrp.evaluation import check_logits
from lrp.files import class_sources, sha256, sha256_file, why_unreadable, write_whole
from lrp.model.loading import load_weights
from lrp.network.arithmetic import run_model
from lrp.training import Training

log = logging.getLogger(__name__)


def own_sources(model: nn.Module) -> list[str]:
    """The code of a network's classes that are neither torch's nor lrp's: what it computes may change with it."""
    classes = {type(module) for module in model.modules() if type(module).__module__.split(".")[0] not in ("torch", "lrp")}
    return class_sources(classes)


@dataclass(frozen=True)
class ModelSource:
    """A network, how it is built and where its weights come from.

    Attributes:
        name: Of the network, in tables and messages.
        make: Builds the network from ``options``, ``in_channels`` and ``num_classes``.
        options: Keywords for ``make``.
        checkpoint: The file that holds its weights; None: it is trained, unless ``training.epochs`` is 0, which leaves it as built.
        training: How it is trained.
    """

    name: str
    make: Callable[..., nn.Module]
    options: dict[str, Any]
    checkpoint: str | None
    training: Training

    def check(self) -> None:
        """Look for the checkpoint, before anything slow.

        Raises:
            InputError: For a checkpoint that does not exist, or is not a file.
        """
        if self.checkpoint is not None and (reason := why_unreadable(Path(self.checkpoint).expanduser())):
            raise InputError("model.checkpoint", self.checkpoint, reason)

    def arguments(self, in_channels: int, num_classes: int) -> dict[str, Any]:
        """What ``make`` is called with: the options, and of these two what it accepts (a function that passes its keywords on,
        as torchvision's do, accepts ``num_classes``)."""
        parameters = inspect.signature(self.make).parameters
        passes_on = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        given = dict(self.options)
        if "in_channels" in parameters:
            given.setdefault("in_channels", in_channels)
        if "num_classes" in parameters or passes_on:
            given.setdefault("num_classes", num_classes)
        return given

    def obtain(self, data: Data, seed: int, cache: Path, device: torch.device, estimator: Any = None) -> tuple[nn.Module, str]:
        """The trained network in eval mode on ``device`` and the SHA-256 of the file that holds its weights.

        ``estimator.pick`` gets the logits out of what the network returns, where that is not a tensor. Two jobs that need the same
        training do it once.

        Raises:
            InputError: For a network that cannot be made or run, and for weights that do not fit it.
        """
        torch.manual_seed(seed)
        pick = None if estimator is None else estimator.pick
        try:
            model = self.make(**self.arguments(in_channels=data.channels, num_classes=data.num_classes))
        except InputError:
            raise
        except Exception as error:  # whatever the user's function raises
            made_with = f"{self.options} and {data.num_classes} classes"
            raise InputError(f"model={self.name}: it cannot be made with {made_with} ({first_line(error)})") from error
        if not isinstance(model, nn.Module):
            raise InputError(f"model={self.name}: it makes a {type(model).__name__}, not a torch.nn.Module")
        self._check_outputs(model.eval(), data, pick)
        if self.checkpoint is not None:
            file = Path(self.checkpoint).expanduser()
            load_weights(model, file)
        elif self.training.epochs == 0:
            return model.to(device).eval(), sha256(list(model.state_dict().values()))
        else:
            identity = [self.name, str(model), self.training.identity, str(seed), data.fingerprint(), *own_sources(model)]
            if estimator is not None and estimator.output_name:
                identity.append(estimator.output_name)
            file = cache / "models" / f"{self.name}-{sha256(identity)[:24]}.safetensors"
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(file.with_suffix(".lock")):
                if not self._load_cached(model, file):
                    self._train(model, data, seed, file, device, pick)
        return model.to(device).eval(), sha256_file(file)

    @torch.no_grad()
    def _check_outputs(self, model: nn.Module, data: Data, pick: Callable[[Any], Tensor] | None) -> None:
        """Run the network once, before it is trained or measured.

        Raises:
            InputError: Where it cannot run, and where its outputs are not logits for the classes of the data set.
        """
        for images in (data.train.images[:1], data.train.images[:2]):
            result = run_model(model, data.normalise(images), f"model={self.name}: ")
            logits = result if pick is None else pick(result)
            if isinstance(logits, Tensor) and logits.dim() == 2:
                break  # else a network that squeezes its outputs may give one dimension less for a single image
        check_logits(logits, len(images), data)

    def _load_cached(self, model: nn.Module, file: Path) -> bool:
        if not file.exists():
            return False
        try:
            load_weights(model, file)
        except InputError as error:
            log.warning("the cached network %s is damaged and is trained again (%s)", file, error)
            return False
        log.info("network: trained before, from %s", file)
        return True

    def _train(
        self, model: nn.Module, data: Data, seed: int, file: Path, device: torch.device, pick: Callable[[Any], Tensor] | None
    ) -> None:
        log.info("network: training %s on %s, %d images", self.name, data.name, len(data.train))
        unfinished = file.with_suffix(".unfinished.pt")
        self.training(model.to(device), data, seed, unfinished, pick)
        state = {key: value.cpu().contiguous().clone() for key, value in model.state_dict().items()}
        write_whole(file, lambda path: save_file(state, path))
        unfinished.unlink(missing_ok=True)
