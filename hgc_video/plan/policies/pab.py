"""Pyramid Attention Broadcast (2408.12588): attention outputs are reused over ranges of steps, long for
cross-attention, shorter for temporal, shortest for spatial attention; not at the ends of the run."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ..graph import ATTENTION_KINDS, BlockGraph
from ..schedule import Schedule, StepPlan
from .base import SchedulePolicy


class PAB(SchedulePolicy):
    """Attention outputs are reused over ranges of steps; PAB246 is the published default."""

    spelling: ClassVar[str] = "pab"
    source: ClassVar[str] = "2408.12588"

    spatial: int = Field(
        2, ge=1, description="spatial attention is computed at every so many steps"
    )
    temporal: int = Field(
        4, ge=1, description="temporal attention is computed at every so many steps"
    )
    cross: int = Field(6, ge=1, description="cross-attention is computed at every so many steps")
    skip_first: float = Field(
        0.15, ge=0, le=1, description="share of the run at its start that computes all"
    )
    skip_last: float = Field(
        0.15, ge=0, le=1, description="share of the run at its end that computes all"
    )

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        steps = tuple(self._step(graph, i, num_inference_steps) for i in range(num_inference_steps))
        return Schedule("pab", steps, lossless=False)

    def _step(self, graph: BlockGraph, i: int, num_inference_steps: int) -> StepPlan:
        first = max(1, round(self.skip_first * num_inference_steps))
        last = num_inference_steps - round(self.skip_last * num_inference_steps)
        kinds = [kind for kind in ATTENTION_KINDS if i % getattr(self, kind)]
        if not first <= i < last or not kinds:
            why = "pab: every attention is computed here"
            return StepPlan(branches=graph.branches, reason=why)
        return StepPlan(
            graph.attention_names(*kinds), branches=graph.branches, label=f"held {len(kinds)}/3",
            reason=f"pab: within the ranges of {', '.join(kinds)} attention",
        )  # fmt: skip
