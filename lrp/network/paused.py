"""A network's forward that waits at its layers until it is told to go on."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lrp.batches import Inputs, call
from lrp.network.arithmetic import layer_input, memory_of

ALIVE = 4  # values of a layer's size that a forward is taken to hold between two layers


class _Stopped(BaseException):
    """Nobody waits for the forward any more."""


class Paused:
    """The forwards of several batches, each in a thread of its own of which one at most runs; each waits whenever it comes to one of the
    layers ``names``, before the layer runs: so a layer that is changed meanwhile runs as it is then, and every layer runs once.

    ``close`` has to be called at the end: it ends the threads and takes the hooks off the network.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self.model, self._runs = model, dict[int, _Run]()
        modules = dict(model.named_modules())
        self._handles = [
            modules[name].register_forward_pre_hook(
                lambda module, args, kwargs, name=name: self._wait(name, layer_input(args, kwargs)), with_kwargs=True
            )
            for name in names
        ]

    def begin(self, batch: Inputs) -> _Run:
        """The forward of one batch, which has not begun."""
        return _Run(self, batch)

    def close(self) -> None:
        """End all forwards."""
        for run in list(self._runs.values()):
            run.stop()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _wait(self, name: str, x: Tensor) -> None:
        run = self._runs.get(threading.get_ident())
        if run is not None:
            run.wait(name, x)


class _Run:
    """One forward."""

    def __init__(self, owner: Paused, batch: Inputs) -> None:
        self._owner, self._batch = owner, batch
        self._go, self._there = threading.Semaphore(0), threading.Semaphore(0)
        self._found: tuple[str, Tensor] | None = None
        self._error: BaseException | None = None
        self._stopping = False
        self._threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._forward, daemon=True)

    def input_of(self, name: str) -> Tensor | None:
        """What the layer reads: the forward goes on until it comes there; None where it comes to its end instead."""
        while self._found is None or self._found[0] != name:
            if not self._thread.is_alive():
                if self._thread.ident is not None:
                    return None
                self._thread.start()
            self._go.release()
            self._there.acquire()
            if self._error is not None:
                raise self._error
            if self._found is None:
                return None
        return self._found[1]

    def wait(self, name: str, x: Tensor) -> None:
        """In the thread: say where it is, and wait.

        Raises:
            _Stopped: Where it is not to go on.
        """
        self._found = name, x
        self._there.release()
        self._go.acquire()
        if self._stopping:
            raise _Stopped

    def stop(self) -> None:
        """Let the thread end where it waits."""
        self._stopping = True
        if self._thread.is_alive():
            self._go.release()
            self._thread.join()

    @torch.no_grad()
    def _forward(self) -> None:
        runs, own = self._owner._runs, threading.get_ident()
        runs[own] = self
        self._go.acquire()
        try:
            torch.set_num_threads(self._threads)  # each thread begins with all of the machine's
            if not self._stopping:
                call(self._owner.model, self._batch)
        except _Stopped:
            pass
        except BaseException as error:  # raised again where the input is asked for
            self._error = error
        finally:
            self._found = None
            runs.pop(own, None)
            self._there.release()


@torch.no_grad()
def held_by_one(model: nn.Module, names: Sequence[str], example: Inputs) -> int:
    """About how many bytes a forward of one example holds between two of these layers."""
    modules, most = dict(model.named_modules()), 0

    def look(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        nonlocal most
        most = max(most, memory_of(layer_input(args, kwargs))[1], memory_of(output)[1])

    handles = [modules[name].register_forward_hook(look, with_kwargs=True) for name in names]
    try:
        call(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return ALIVE * most
