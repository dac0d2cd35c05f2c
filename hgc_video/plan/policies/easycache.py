"""EasyCache (2507.02860; H-EmbodVis/EasyCache): at run time, whole steps are skipped while the change
that the input's change foretells stays small; a skipped step adds the last out - in to its input.

It reads one number of the input at every step before it decides, as its release does: on a GPU that
is one wait per step. Skipped steps do not run the ControlNet either.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import PresetError
from ..adaptive import AdaptivePlan, Signals
from ..graph import WHOLE, BlockGraph
from ..schedule import StepPlan


@dataclass(frozen=True)
class EasyCache:
    """threshold: tau, the accumulated relative change that forces a computation; warm_up: the first
    steps, all computed. The last step is computed."""

    threshold: float = 0.05
    warm_up: int = 5

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> AdaptivePlan:
        """The plan of a run."""
        if self.threshold < 0 or self.warm_up < 1:
            raise PresetError(
                f"easycache: threshold must be 0 or more and warm_up 1 or more: {self}"
            )
        skipped = StepPlan(
            frozenset(graph.residuals()),
            frozenset({WHOLE}),
            branches=graph.branches,
            label="skipped",
        )
        compute = StepPlan(branches=graph.branches)
        choices = tuple(
            (compute,) if i < self.warm_up or i == num_inference_steps - 1 else (compute, skipped)
            for i in range(num_inference_steps)
        )
        return AdaptivePlan("easycache", choices, lambda: _Decider(self.threshold), lossless=False)


@dataclass
class _Decider:
    threshold: float
    accumulated: float = 0.0
    rate: float | None = None  # k: change of the output per change of the input
    input_change: float = 0.0

    def __call__(self, choices: int, signals: Signals) -> int:
        before, self.input_change = self.input_change, signals.input_change()
        if signals.computed_last and signals.output_change() > 0 and before > 0:
            self.rate = signals.output_change() / before
        if choices == 1 or self.rate is None:
            self.accumulated = 0.0
            return 0
        self.accumulated += self.rate * self.input_change / signals.output_size()
        if self.accumulated < self.threshold:
            return 1
        self.accumulated = 0.0
        return 0
