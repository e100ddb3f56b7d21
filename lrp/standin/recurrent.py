"""torch's recurrent networks with their matrices as Linear layers: what reads the inputs runs once for all steps, what reads the
state runs at each, in torch's kernel where nothing listens to the layers and the kernel costs less than steps in Python."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import _VF, Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from lrp.layer.compressed import Compressed
from lrp.standin.base import StandIn, is_usual, linear

State = tuple[Tensor, ...]  # (h,), of an LSTM (h, c), each (B, H), or (1, B, H) where one direction of one layer begins and ends

# As many multiply-accumulates take as long on a CPU as a step in Python takes longer than one in torch's kernel. Measured on one thread: at
# 64 to 256 features the kernel is faster, at 512 and more the factors are, step by step.
STEP = 6_000_000


class _Direction(nn.Module):
    """One direction of one layer."""

    kernel: ClassVar[Any]  # of torch, for all steps

    def __init__(self, dense: Any, suffix: str) -> None:
        super().__init__()
        held = dense._parameters
        self.input = linear(held[f"weight_ih_{suffix}"], held.get(f"bias_ih_{suffix}"))
        self.state = linear(held[f"weight_hh_{suffix}"], held.get(f"bias_hh_{suffix}"))
        projection = held.get(f"weight_hr_{suffix}")
        self.projection = None if projection is None else linear(projection, None)

    def forward(self, x: Tensor, sizes: list[int] | None, state: State, reverse: bool) -> tuple[Tensor, State]:
        """The outputs, shaped as ``x`` but for the features, and the last state of each sequence; states are (1, B, H).

        ``x``: (B, L, N); with ``sizes`` (sum of sizes, N), one step after the other, of sequences that end earlier and earlier.
        """
        if self._kernel_costs_less(x, sizes):
            return self._in_kernel(x, sizes, state, reverse)
        read = self.input(x)  # (B, L, N): statistics of a layer ask for the examples first
        order = list(read.unbind(1) if sizes is None else read.split(sizes))
        outputs: list[Tensor] = []
        state = tuple(part[0] for part in state)
        for now in reversed(order) if reverse else order:
            if sizes is None:
                state = self.step(now, state)
                outputs.append(state[0])
            else:  # of the sequences that have this step: they are the first
                new = self.step(now, tuple(part[: len(now)] for part in state))
                state = tuple(torch.cat([part, old[len(now) :]]) for part, old in zip(new, state, strict=True))
                outputs.append(new[0])
        outputs = outputs[::-1] if reverse else outputs
        return torch.stack(outputs, 1) if sizes is None else torch.cat(outputs), tuple(part[None] for part in state)

    def step(self, read: Tensor, state: State) -> State:
        """The next state of sequences whose input gave ``read``."""
        raise NotImplementedError

    def _kernel_costs_less(self, x: Tensor, sizes: list[int] | None) -> bool:
        """Whether torch's kernel is to run: it computes the layers itself, so nobody else may listen to them, and it needs their matrices,
        which are rebuilt at each call. A graph that is exported holds the factors, since its steps cost no Python."""
        held: Any = self._modules
        jit: Any = torch.jit  # which does not say what it exports
        layers = [layer for layer in held.values() if layer is not None]
        if torch.compiler.is_compiling() or jit.is_tracing() or not all(map(_is_silent, layers)):
            return False
        if x.device.type not in ("cpu", "meta"):
            return True
        rows, steps = (x.shape[0] * x.shape[1], x.shape[1]) if sizes is None else (len(x), len(sizes))
        small = [layer for layer in layers if isinstance(layer, Compressed)]
        if sum(layer.rows * layer.columns * (rows + min(layer.rows, layer.columns)) for layer in small) <= steps * STEP:
            return True  # at any rank
        more = 0.0  # multiply-accumulates, against the factors step by step
        for layer in small:
            if layer is held["input"] and layer.as_pair() is not None:
                continue  # its factors run here as well
            size, sides = layer.rows * layer.columns, layer.rows + layer.columns
            stored = sum(parameter.numel() for name, parameter in layer.named_parameters() if name != "bias")
            more += rows * (size - stored) + size * stored / sides  # stored / sides: its rank
        return more <= steps * STEP

    def _in_kernel(self, x: Tensor, sizes: list[int] | None, state: State, reverse: bool) -> tuple[Tensor, State]:
        """As ``forward``, by torch's kernel: the factor that reads the inputs runs before it, for all steps, and the matrix that reads the
        state is rebuilt."""
        reader, stepper, projection = self.input, self.state, self.projection
        pair = reader.as_pair() if isinstance(reader, Compressed) else None
        x, read = (x, _matrix(reader)) if pair is None else (F.linear(x, pair[1]), pair[0])
        weights = [read, _matrix(stepper)]
        biases = [reader.bias, stepper.bias]
        given = any(bias is not None for bias in biases)
        if given:
            weights += [read.new_zeros(len(read)) if bias is None else bias for bias in biases]
        if projection is not None:
            weights.append(_matrix(projection))
        hx = state if len(state) > 1 else next(iter(state))
        # cuDNN gives gradients only of what it was told is training; without dropout nothing else depends on it
        options: Any = (given, 1, 0.0, torch.is_grad_enabled(), False)
        if sizes is None:
            y, *ends = self.kernel(x.flip(1) if reverse else x, hx, weights, *options, True)
            return y.flip(1) if reverse else y, tuple(ends)
        back = _backwards(sizes).to(x.device) if reverse else None
        y, *ends = self.kernel(x if back is None else x[back], torch.tensor(sizes), hx, weights, *options)
        return y if back is None else y[back], tuple(ends)


def _is_silent(layer: nn.Module) -> bool:
    """Whether nothing but the layer's output depends on its being called: no hook, no forward of its own."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return (type(layer) is nn.Linear or isinstance(layer, Compressed)) and not any(hooks) and "forward" not in vars(layer)


def _matrix(layer: Any) -> Tensor:
    """The matrix (M, N) of a layer, compressed or not."""
    if not isinstance(layer, Compressed):
        return layer.weight
    pair = layer.as_pair()
    return layer.weight_matrix() if pair is None else pair[0] @ pair[1]


def _backwards(sizes: list[int]) -> Tensor:
    """Where packed rows (sum of sizes,) come from when each sequence runs from its end."""
    counts = torch.tensor(sizes)
    starts = counts.cumsum(0) - counts
    step = torch.repeat_interleave(torch.arange(len(sizes)), counts)
    sequence = torch.arange(len(step)) - starts[step]
    lengths = (counts[:, None] > torch.arange(sizes[0])).sum(0)
    return starts[lengths[sequence] - 1 - step] + sequence


class _Lstm(_Direction):
    kernel = staticmethod(_VF.lstm)

    def step(self, read: Tensor, state: State) -> State:
        h, c = state
        i, f, g, o = (read + self.state(h)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return h if self.projection is None else self.projection(h), c


class _Gru(_Direction):
    kernel = staticmethod(_VF.gru)

    def step(self, read: Tensor, state: State) -> State:
        (h,) = state
        r, z, n = read.chunk(3, -1)
        of_r, of_z, of_n = self.state(h).chunk(3, -1)
        z = (z + of_z).sigmoid()
        n = (n + (r + of_r).sigmoid() * of_n).tanh()
        return (n + z * (h - n),)


class _Tanh(_Direction):
    kernel = staticmethod(_VF.rnn_tanh)

    def step(self, read: Tensor, state: State) -> State:
        return ((read + self.state(state[0])).tanh(),)


class _Relu(_Direction):
    kernel = staticmethod(_VF.rnn_relu)

    def step(self, read: Tensor, state: State) -> State:
        return (F.relu(read + self.state(state[0])),)


CELLS: dict[str, type[_Direction]] = {"LSTM": _Lstm, "GRU": _Gru, "RNN_TANH": _Tanh, "RNN_RELU": _Relu}


class RecurrentNetwork(nn.Module):
    """Called as torch's LSTM, GRU and RNN are: (L, B, N), (B, L, N) where batches are first, (L, N) or a PackedSequence, and a state.

    Its layers are ``l0``, ``l0_reverse``, ``l1`` and so on.
    """

    def __init__(self, dense: Any) -> None:
        super().__init__()
        self.mode: str = dense.mode
        self.num_layers: int = dense.num_layers
        self.bidirectional: bool = dense.bidirectional
        self.batch_first: bool = dense.batch_first
        self.dropout: float = dense.dropout
        self.hidden_size: int = dense.hidden_size
        self.proj_size: int = dense.proj_size
        self.places = [f"l{layer}{end}" for layer in range(self.num_layers) for end in ("", "_reverse")[: 1 + self.bidirectional]]
        for place in self.places:
            self.add_module(place, CELLS[self.mode](dense, place))

    def flatten_parameters(self) -> None:
        """Nothing: torch's networks lay their weights out for cuDNN here."""

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """All outputs of the last layer, and the last states of all layers."""
        packed = isinstance(input, PackedSequence)
        whole = packed or input.dim() == 3
        if packed:
            x, sizes, order, back = input.data, input.batch_sizes.tolist(), input.sorted_indices, input.unsorted_indices
        else:
            x = input.unsqueeze(0) if not whole else input if self.batch_first else input.transpose(0, 1)
            sizes, order, back = None, None, None
        states = self._begin(x, x.shape[0] if sizes is None else sizes[0], hx, whole, order)
        ways, last = 1 + self.bidirectional, []
        for layer in range(self.num_layers):
            outputs = []
            for way in range(ways):
                at = layer * ways + way
                direction: Any = getattr(self, self.places[at])
                output, state = direction(
                    x, sizes, tuple(states if len(self.places) == 1 else [part[at : at + 1] for part in states]), reverse=way == 1
                )
                outputs.append(output)
                last.append(state)
            x = outputs[0] if ways == 1 else torch.cat(outputs, -1)
            if layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        ends = [*last[0]] if len(last) == 1 else [torch.cat(parts) for parts in zip(*last, strict=True)]
        ends = ends if back is None else [end.index_select(1, back) for end in ends]
        ends = ends if whole else [end.squeeze(1) for end in ends]
        ending = tuple(ends) if self.mode == "LSTM" else ends[0]
        if packed:
            return PackedSequence(x, input.batch_sizes, order, back), ending
        return x.squeeze(0) if not whole else x if self.batch_first else x.transpose(0, 1), ending

    def _begin(self, x: Tensor, batch: int, hx: Any, whole: bool, order: Tensor | None) -> list[Tensor]:
        """The states before the first step, (all layers and directions, B, H) each, in the order of the batch as it is packed."""
        if hx is None:
            zeros = x.new_zeros(len(self.places), batch, self.proj_size or self.hidden_size)
            if self.mode != "LSTM":
                return [zeros]
            return [zeros, x.new_zeros(len(self.places), batch, self.hidden_size) if self.proj_size else zeros]
        states = [*hx] if self.mode == "LSTM" else [hx]
        states = states if whole else [state.unsqueeze(1) for state in states]
        return states if order is None else [state.index_select(1, order) for state in states]


class Recurrent(StandIn):
    """LSTM, GRU and RNN."""

    name = "recurrent"

    def stands_for(self, module: Any) -> bool:  # noqa: D102
        return type(module) in (nn.LSTM, nn.GRU, nn.RNN) and is_usual(module, *module._flat_weights_names)

    def make(self, module: Any) -> nn.Module:  # noqa: D102
        return RecurrentNetwork(module)
