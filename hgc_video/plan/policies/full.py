"""The policies that cache nothing: every layer, branch and step is computed."""

from __future__ import annotations

from typing import ClassVar

from ..graph import BlockGraph
from ..schedule import Schedule, StepPlan
from .base import SchedulePolicy


class Full(SchedulePolicy):
    """Everything at every step, through the engine: what the stock models compute, bit for bit."""

    spelling: ClassVar[str] = "full"
    source: ClassVar[str] = "the stock pipeline"

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        step = StepPlan(branches=graph.branches, reason="full: every step computes everything")
        return Schedule("full", (step,) * num_inference_steps, lossless=False)


class Off(SchedulePolicy):
    """No cache: nothing is wrapped, the stock models run."""

    spelling: ClassVar[str] = "off"
    source: ClassVar[str] = "the stock pipeline"

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        step = StepPlan(branches=graph.branches, label="stock", reason="off: no cache")
        return Schedule("off", (step,) * num_inference_steps, lossless=False, stock=True)
