"""Muon for matrices and kernels, AdamW for every other parameter, as one optimizer with named state.

Muon orthogonalises the momentum of a matrix (Jordan et al. 2024); `torch.optim.Muon` takes matrices
only, so a kernel (o i h w) is handed to it as the matrix (o i·h·w) of the same memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_ADAM_STATE = ("exp_avg", "exp_avg_sq")
_MUON_STATE = "momentum_buffer"


class MuonAndAdamW:
    """Steps the named parameters; without `muon_rate` all of them belong to AdamW.

    Both rates are multiplied by what `scale` says, so that one schedule serves both.
    """

    def __init__(
        self, parameters: dict[str, nn.Parameter], *, rate: float, muon_rate: float | None,
        weight_decay: float,
    ) -> None:  # fmt: skip
        matrices = {k: p for k, p in parameters.items() if muon_rate is not None and p.ndim >= 2}
        self.parameters, self.matrices = parameters, matrices
        self.flat = {k: nn.Parameter(p.detach().view(len(p), -1)) for k, p in matrices.items()}
        others = [p for k, p in parameters.items() if k not in matrices]
        self.optimizers: list[torch.optim.Optimizer] = []
        if others:
            self.optimizers.append(
                torch.optim.AdamW(
                    others, lr=rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
                )
            )
        if muon_rate is not None and matrices:
            flat = list(self.flat.values())
            self.optimizers.append(torch.optim.Muon(flat, lr=muon_rate, weight_decay=weight_decay))
        self._rates = [o.param_groups[0]["lr"] for o in self.optimizers]

    def scale(self, share: float) -> None:
        """Sets every learning rate to this share of its full value."""
        for optimizer, rate in zip(self.optimizers, self._rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * share

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for parameter in (*self.parameters.values(), *self.flat.values()):
            parameter.grad = None

    def step(self) -> None:
        """Moves every parameter that has a gradient."""
        for key, parameter in self.matrices.items():
            gradient = parameter.grad
            self.flat[key].grad = None if gradient is None else gradient.reshape(len(gradient), -1)
        for optimizer in self.optimizers:
            optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Every moment, as `<moment>.<parameter>`."""
        found = {}
        for key in self.parameters:
            for moment, value in self._state_of(key).items():
                if moment in (*_ADAM_STATE, _MUON_STATE):
                    found[f"{moment}.{key}"] = value
        return found

    def load(self, state: dict[str, Tensor], step: int) -> None:
        """Takes up the moments that `state` gave after `step` steps; parameters without one begin anew."""
        for key, parameter in self.parameters.items():
            if key in self.matrices:
                if f"{_MUON_STATE}.{key}" in state:
                    momentum = state[f"{_MUON_STATE}.{key}"]
                    self._state_of(key)[_MUON_STATE] = momentum.to(parameter.device)
            elif f"{_ADAM_STATE[0]}.{key}" in state:
                moments = {m: state[f"{m}.{key}"].to(parameter.device) for m in _ADAM_STATE}
                self.optimizers[0].state[parameter] = {
                    "step": torch.tensor(float(step), device=parameter.device),
                    **moments,
                }

    def _state_of(self, key: str) -> dict[str, Any]:
        if key in self.matrices:
            found: dict[str, Any] = self.optimizers[-1].state[self.flat[key]]
        else:
            found = self.optimizers[0].state[self.parameters[key]]
        return found
