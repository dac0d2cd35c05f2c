"""Clockwork Diffusion (2312.08128) with its training-free identity adaptor: the low-resolution path
runs at every `clock`-th step, the outermost blocks at every step."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ..graph import BlockGraph
from ..schedule import Schedule, StepPlan
from .base import SchedulePolicy


class Clockwork(SchedulePolicy):
    """The low-resolution path at every n-th step."""

    spelling: ClassVar[str] = "clockwork"
    source: ClassVar[str] = "2312.08128"

    clock: int = Field(
        4,
        ge=1,
        description="so many steps apart; 4 is what the release runs (SD1.5, 50 DDIM steps)",
    )

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        outermost = graph.blocks[0] if graph.blocks else 1
        low = frozenset({graph.depths[outermost - 1]})
        full = StepPlan(
            branches=graph.branches, label="key", reason=f"clockwork: every {self.clock} steps"
        )
        high = StepPlan(
            low,
            branches=graph.branches,
            label="adaptor",
            reason="clockwork: identity adaptor between key steps",
        )
        steps = tuple(high if i % self.clock else full for i in range(num_inference_steps))
        return Schedule("clockwork", steps, lossless=False)
