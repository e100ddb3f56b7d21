"""Where a network comes from: a checkpoint, or a training that is done once and cached."""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from lrp.dataset.base import Data
from lrp.entries import read_entry, write_entry
from lrp.epochs import tell
from lrp.errors import InputError, first_line
from lrp.evaluation import check_logits
from lrp.files import remove_leftovers, sha256, sha256_file, version, why_unreadable, write_whole
from lrp.identity import computes
from lrp.layer.duplicate import load_state
from lrp.locks import locked
from lrp.model.loading import load_weights
from lrp.model.tokens import run_or_explain
from lrp.training import Training, computed_by

log = logging.getLogger(__name__)


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
            return model, self._cached(model, data, seed, cache, device, estimator)
        return model.to(device).eval(), sha256_file(file)

    @torch.no_grad()
    def _check_outputs(self, model: nn.Module, data: Data, pick: Callable[[Any], Tensor] | None) -> None:
        """Run the network once, before it is trained or measured.

        Raises:
            InputError: Where it cannot run, and where its outputs are not logits for the classes of the data set.
        """
        for images in (data.train.images[:1], data.train.images[:2]):
            result = run_or_explain(model, data.normalise(images), f"model={self.name}: ")
            logits = result if pick is None else pick(result)
            if isinstance(logits, Tensor) and logits.dim() == 2:
                break  # else a network that squeezes its outputs may give one dimension less for a single image
        check_logits(logits, len(images), data)

    def _cached(self, model: nn.Module, data: Data, seed: int, cache: Path, device: torch.device, estimator: Any) -> str:
        """Give ``model`` trained weights, from the cache where they are there; their SHA-256, of the bytes that they have as a
        safetensors file with nothing else in it."""
        identity = [self.name, str(model), self.training.identity, str(seed), data.fingerprint(), *computes(model.modules())]
        if estimator is not None and estimator.output_name:
            identity.append(estimator.output_name)
        before, key = sha256(identity), sha256([*identity, computed_by(device)])
        name = self.name.replace("/", ".")
        file = cache / "models" / f"{name}-{key[:24]}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        with locked(file.with_suffix(".lock")):
            remove_leftovers(file.parent, file.stem)
            old = file.with_name(f"{name}-{before[:24]}.safetensors")
            if old.exists() and not file.exists():
                log.info("network: %s is of an earlier version of lrp, without its threads and a checksum, and is not used", old)
            unfinished, curve = file.with_suffix(".unfinished.pt"), file.with_suffix(".csv")
            if self._load_cached(model, file, key):
                _tell_again(curve)
            else:
                remove_leftovers(file.parent, unfinished.stem)
                log.info("network: training %s on %s, %d images", self.name, data.name, len(data.train))
                before = version(file)
                history = self.training(model.to(device), data, seed, unfinished, None if estimator is None else estimator.pick, key)
                if version(file) == before or not self._load_cached(model, file, key):  # without locks another may have been quicker
                    write_whole(curve, lambda path: pd.DataFrame(history).to_csv(path, index=False))
                    write_entry(file, _state(model), key)
            unfinished.unlink(missing_ok=True)  # also where a kill fell between the two
            model.to(device).eval()
        return hashlib.sha256(to_bytes(_state(model))).hexdigest()

    def _load_cached(self, model: nn.Module, file: Path, key: str) -> bool:
        state = read_entry(file, key)
        if state is None:
            return False
        own = model.state_dict()
        if [(name, value.shape) for name, value in state.items()] != [(name, own[name].shape) for name in state if name in own] or len(
            state
        ) != len(own):
            log.warning("%s is not used and is made again: it does not fit the network", file)
            return False
        load_state(model, state)
        log.info("network: trained before, from %s", file)
        return True


def _tell_again(curve: Path) -> None:
    """The epochs of a training that is found in the cache, where its table is there: it is looked at and decides nothing."""
    try:
        epochs = pd.read_csv(curve, dtype=float).to_dict("records")
    except (OSError, ValueError):
        return
    for epoch in epochs:
        if "epoch" in epoch:
            tell({str(name): value for name, value in epoch.items()})


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.cpu().contiguous().clone() for key, value in model.state_dict().items()}
