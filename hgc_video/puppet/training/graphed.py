"""Training steps on a CUDA device without a launch for every kernel: loss and gradients as CUDA graphs.

The models are small, so that a step of separate launches mostly waits for the host. Forward and backward are
recorded once for every set of input shapes and replayed from then on (torch.cuda.graph).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Inputs = dict[str, Tensor]
LossOf = Callable[[Inputs, str], Tensor]  # of a step's tensors and the kind of its control


class GraphedLoss:
    """A loss on a CUDA device whose `backward` gives the gradients that the same replay computed."""

    def __init__(self, loss_of: LossOf, parameters: Sequence[nn.Parameter]) -> None:
        self._loss_of, self._parameters = loss_of, list(parameters)
        self._recorded: dict[Any, _Recorded] = {}

    def __call__(self, inputs: Inputs, kind: str) -> Tensor:
        """The loss (a scalar) of tensors on the device; recorded where their shapes or the kind are new."""
        key = kind, tuple((name, tuple(value.shape)) for name, value in sorted(inputs.items()))
        if key not in self._recorded:
            pool = next((one.graph.pool() for one in self._recorded.values()), None)
            self._recorded[key] = _Recorded(self._loss_of, inputs, kind, self._parameters, pool)
        recorded = self._recorded[key]
        for name, value in inputs.items():
            recorded.inputs[name].copy_(value)
        loss: Tensor = _Replay.apply(recorded, *self._parameters)  # type: ignore[no-untyped-call]
        return loss


class _Recorded:
    """One graph, the tensors that it reads, and those that it writes: the loss and the gradients."""

    def __init__(
        self, loss_of: LossOf, inputs: Inputs, kind: str, parameters: list[nn.Parameter], pool: Any
    ) -> None:  # fmt: skip
        self.inputs = {name: value.clone() for name, value in inputs.items()}
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(
            side
        ):  # libraries choose their kernels and allocate outside the graph
            torch.autograd.grad(loss_of(self.inputs, kind), parameters, allow_unused=True)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool):
            loss = loss_of(self.inputs, kind)
            self.gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        self.loss = loss.detach()


class _Replay(torch.autograd.Function):
    """Replays a graph; its backward hands out the gradients that it has written."""

    @staticmethod
    def forward(ctx: Any, recorded: _Recorded, *_: Tensor) -> Tensor:
        recorded.graph.replay()
        ctx.recorded = recorded
        return recorded.loss.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        found = ctx.recorded.gradients
        return None, *(None if one is None else one * outer for one in found)
