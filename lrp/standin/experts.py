"""Experts that transformers stores as three-dimensional parameters, each with Linear layers of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lrp.standin.base import StandIn, linear

# What transformers' decorator ``use_experts_implementation`` says of such a module.
SAID = ("has_gate", "has_bias", "has_post_expert_norm", "is_transposed", "is_concatenated", "_is_expert_parallel")


class Expert(nn.Module):
    """The two matrices of one expert."""

    def __init__(self, up: nn.Module, down: nn.Module) -> None:
        super().__init__()
        self.up, self.down = up, down


class Experts(nn.Module):
    """E experts, named "0", "1" and so on, called as transformers' are: the tokens (T, H), to which experts each of them goes (T, k), and
    their weights (T, k)."""

    act_fn: Any
    post_expert_norm: Any

    def __init__(self, dense: Any) -> None:
        super().__init__()
        self.num_experts: int = dense.num_experts
        self.has_gate: bool = dense.has_gate
        self.has_post_expert_norm: bool = dense.has_post_expert_norm
        self.gate = type(dense)._apply_gate  # it reads the options of the dense module, which are carried over
        for name, module in dense._modules.items():
            self.add_module(name, module)
        for e in range(self.num_experts):
            self.add_module(str(e), Expert(*(linear(*_matrix(dense, name, e)) for name in _names(dense))))

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """(T, H)."""
        result = torch.zeros_like(hidden_states)
        for e in range(self.num_experts):
            token, choice = torch.where(top_k_index == e)
            if not torch.compiler.is_compiling() and not len(token):
                continue
            expert: Any = self.get_submodule(str(e))
            inner = expert.up(hidden_states[token])
            inner = self.gate(self, inner) if self.has_gate else self.act_fn(inner)
            output = expert.down(inner)
            if self.has_post_expert_norm:
                output = self.post_expert_norm(output)
            output = output * top_k_weights[token, choice, None]
            result = result.index_add(0, token, output.to(result.dtype))
        return result


class JoinedExperts(StandIn):
    """Of Mixtral, Qwen-MoE, gpt-oss and their like."""

    name = "transformers.Experts"

    def stands_for(self, module: Any) -> bool:  # noqa: D102
        if any(name not in vars(module) for name in SAID) or not callable(getattr(type(module), "_apply_gate", None)):
            return False
        names = _names(module)
        held = {*names, *(f"{name}_bias" for name in names if module.has_bias)}
        if module._is_expert_parallel or module._parameters.keys() != held:
            return False
        return all(module._parameters[name].dim() == 3 for name in names) and _computes_so(module)

    def make(self, module: Any) -> nn.Module:  # noqa: D102
        return Experts(module)


def _names(dense: Any) -> tuple[str, str]:
    return "gate_up_proj" if dense.has_gate else "up_proj", "down_proj"


def _matrix(dense: Any, name: str, e: int) -> tuple[Tensor, Tensor | None]:
    """The weight (M, N) and the bias of one expert."""
    weight = dense._parameters[name][e]
    return weight.T if dense.is_transposed else weight, dense._parameters[f"{name}_bias"][e] if dense.has_bias else None


@torch.no_grad()
def _computes_so(dense: Any) -> bool:
    """Whether a module gives what two matrices and a gate do: of three experts, for a token each."""
    chosen = torch.arange(min(3, dense.num_experts))
    up = _matrix(dense, _names(dense)[0], 0)[0]
    tokens = torch.randn(len(chosen), up.shape[1], generator=torch.Generator().manual_seed(0)).to(up)
    expected = []
    for e, token in zip(chosen.tolist(), tokens, strict=True):
        inner = nn.functional.linear(token[None], *_matrix(dense, _names(dense)[0], e))
        inner = dense._apply_gate(inner) if dense.has_gate else dense.act_fn(inner)
        output = nn.functional.linear(inner, *_matrix(dense, "down_proj", e))
        expected.append(dense.post_expert_norm(output) if dense.has_post_expert_norm else output)
    try:
        found = dense(tokens, chosen[:, None].to(tokens.device), tokens.new_ones(len(chosen), 1))
    except Exception:  # whatever a forward with other arguments raises
        return False
    few = 1e-2 if tokens.dtype in (torch.float16, torch.bfloat16) else 1e-4
    return torch.allclose(found, torch.cat(expected), few, few * float(found.abs().max()))
