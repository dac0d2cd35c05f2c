"""The two policies without a loss: what the host computes, and the same without the repetitions."""

from __future__ import annotations

from ..graph import BlockGraph
from ..schedule import Schedule, StepPlan


def full(graph: BlockGraph, num_inference_steps: int) -> Schedule:
    """Everything at every step, through the engine: what the host itself computes."""
    step = StepPlan(branches=graph.branches)
    return Schedule("full", (step,) * num_inference_steps, share_text=False)


def lossless(graph: BlockGraph, num_inference_steps: int) -> Schedule:
    """Everything that matters: the hint encoder runs once per clip, text is projected once per prompt."""
    first = StepPlan(branches=graph.branches)
    later = StepPlan(frozenset(graph.names("hint")), graph.branches)
    return Schedule("lossless", (first, *(later,) * (num_inference_steps - 1)))
