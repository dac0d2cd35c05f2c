"""EasyCache (2507.02860; H-EmbodVis/EasyCache): at run time, whole steps are skipped while the change
that the input's change predicts stays small; a skipped step adds the last out - in to its input.

It reads one number of the input at every step before it decides, as its release does: on a GPU that
is one wait per step. Skipped steps do not run the ControlNet either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from ..adaptive import AdaptivePlan, Decision, Signals
from ..graph import PREDICTION, BlockGraph
from ..schedule import StepPlan
from .base import Policy


class EasyCache(Policy):
    """Whole steps are skipped, decided at run time. The last step is computed."""

    spelling: ClassVar[str] = "easycache"
    source: ClassVar[str] = "2507.02860"

    threshold: float = Field(
        0.05, ge=0, description="tau, the accumulated relative change that forces a computation"
    )
    warm_up: int = Field(5, ge=1, description="the first steps, all computed")

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> AdaptivePlan:
        """The plan of a run."""
        skipped = StepPlan(
            frozenset(graph.residuals()),
            frozenset({PREDICTION}),
            branches=graph.branches,
            label="skipped",
        )
        compute, last = StepPlan(branches=graph.branches), num_inference_steps - 1
        first = compute.because(f"easycache: one of the first {self.warm_up} steps")
        final = compute.because("easycache: the last step")
        choices = tuple(
            (first,) if i < self.warm_up else (final,) if i == last else (compute, skipped)
            for i in range(num_inference_steps)
        )
        return AdaptivePlan("easycache", choices, lambda: _Decider(self.threshold), lossless=False)


@dataclass
class _Decider:
    threshold: float
    accumulated: float = 0.0
    rate: float | None = None  # k: change of the output per change of the input
    input_change: float = 0.0

    def __call__(self, choices: int, signals: Signals) -> Decision:
        before, self.input_change = self.input_change, signals.input_change()
        if signals.computed_last and signals.output_change() > 0 and before > 0:
            self.rate = signals.output_change() / before
        if choices == 1 or self.rate is None:
            self.accumulated = 0.0
            return Decision(0, "" if choices == 1 else "easycache: no rate of change is known yet")
        self.accumulated += self.rate * self.input_change / signals.output_size()
        measured = f"easycache: change {self.accumulated:.3g}"
        if self.accumulated < self.threshold:
            return Decision(1, f"{measured} < {self.threshold:g}")
        self.accumulated = 0.0
        return Decision(0, f"{measured} >= {self.threshold:g}")
