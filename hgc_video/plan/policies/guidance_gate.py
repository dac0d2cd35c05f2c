"""Guidance for a part of the run only (guidance intervals: Kynkäänniemi et al. 2404.07724)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ..graph import BlockGraph
from ..schedule import Schedule, StepPlan
from .base import SchedulePolicy


class GuidanceGate(SchedulePolicy):
    """The unconditional branch is dropped for good after a share of the run, and nothing else."""

    spelling: ClassVar[str] = "gate"
    source: ClassVar[str] = "2404.07724"

    at: float = Field(
        0.4, ge=0, le=1, description="share of the run that computes both; above 0 one step or more"
    )

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        share = self.at if graph.branches == 2 else 1.0  # PAG's third branch cannot be spared
        gate = max(1, round(share * num_inference_steps)) if share else 0
        both = StepPlan(branches=graph.branches, reason=f"before the gate at step {gate}")
        one = StepPlan(
            branches=1, label="gated", reason=f"after the gate at step {gate}: one branch"
        )
        steps = tuple(both if i < gate else one for i in range(num_inference_steps))
        return Schedule("gate", steps, lossless=False)
