"""Fewer denoising steps, all computed: the baseline that every cache must beat at the same cost."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ..graph import BlockGraph
from ..schedule import Schedule, StepPlan
from .base import SchedulePolicy


class FewerSteps(SchedulePolicy):
    """The stock run with another number of steps than the one asked for; only `generate` and `compare`,
    which own the loop, can choose it."""

    spelling: ClassVar[str] = "fewer-steps"
    source: ClassVar[str] = "the stock pipeline"

    steps: int = Field(ge=1, le=1000, description="denoising steps to run, whatever was asked for")

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run, which is as long as the loop."""
        step = StepPlan(
            branches=graph.branches, label="stock", reason=f"fewer-steps: {self.steps} steps in all"
        )
        return Schedule("fewer-steps", (step,) * num_inference_steps, lossless=False, stock=True)

    def num_steps(self, asked: int) -> int:
        """Its own number of steps."""
        return self.steps
