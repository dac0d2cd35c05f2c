"""Clockwork Diffusion (2312.08128) with its training-free identity adaptor: the low-resolution path
runs at every `clock`-th step, the outermost blocks at every step."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import PresetError
from ..graph import BlockGraph
from ..schedule import Schedule, StepPlan


@dataclass(frozen=True)
class Clockwork:
    """`clock` 4 is what the release runs (SD1.5, 50 DDIM steps)."""

    clock: int = 4

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        if self.clock < 1:
            raise PresetError(f"clockwork: clock must be 1 or more, got {self.clock}")
        outermost = graph.blocks[0] if graph.blocks else 1
        low = frozenset({graph.cuts[outermost - 1]})
        full = StepPlan(branches=graph.branches, label="key")
        high = StepPlan(low, branches=graph.branches, label="adaptor")
        steps = tuple(high if i % self.clock else full for i in range(num_inference_steps))
        return Schedule("clockwork", steps, lossless=False)
