"""UCache (leejet/stable-diffusion.cpp): EasyCache's test for UNets, tighter early and looser late, with an
error that counts more the longer nothing was computed.

The release measures the branch of the prompt, here it is both branches together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt
from typing import ClassVar

from pydantic import Field

from ..adaptive import OF_PLAN, AdaptivePlan, Decision, Signals
from ..graph import PREDICTION, BlockGraph
from ..schedule import StepPlan
from .base import Policy


class UCache(Policy):
    """Whole steps are skipped, decided at run time; a skipped step adds the last out - in to its input."""

    spelling: ClassVar[str] = "ucache"
    source: ClassVar[str] = "leejet/stable-diffusion.cpp"

    threshold: float = Field(
        1.0, ge=0, description="accumulated relative change that forces a computation"
    )
    start: float = Field(
        0.15, ge=0, le=1, description="share of the run before anything is skipped"
    )
    end: float = Field(0.95, ge=0, le=1, description="share of the run after which nothing is")
    early: float = Field(0.5, ge=0, description="times the threshold in the first fifth")
    late: float = Field(1.5, ge=0, description="times the threshold in the last fifth")
    gain: float = Field(1.6, ge=1, description="weight of the outputs' mean change in their scale")

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> AdaptivePlan:
        """The plan of a run."""
        skipped = StepPlan(
            frozenset(graph.residuals()), frozenset({PREDICTION}), branches=graph.branches,
            label="skipped",
        )  # fmt: skip
        compute = StepPlan(branches=graph.branches)
        first, last = int(self.start * num_inference_steps), int(self.end * num_inference_steps)
        outside = compute.because(f"ucache: not among the steps {first} to {last - 1}")
        choices = tuple(
            (compute, skipped)
            if first + 2 <= i < last
            else (compute if first <= i < last else outside,)
            for i in range(num_inference_steps)
        )
        return AdaptivePlan(
            "ucache",
            choices,
            lambda: _Decider(self, first, last, num_inference_steps),
            lossless=False,
        )


@dataclass
class _Decider:
    """Counts the computed steps within the range, and what their outputs tell."""

    policy: UCache = field(metadata=OF_PLAN)
    first: int = field(metadata=OF_PLAN)
    last: int = field(metadata=OF_PLAN)
    num_steps: int = field(metadata=OF_PLAN)
    index: int = -1
    computed: int = 0
    skipped: int = 0  # since the last computed one
    error: float = 0.0
    rate: float = 0.0  # change of the output per change of the input
    mean_change: float = 0.0  # of the outputs, over the run
    input_change: float = 0.0  # since the last computed step

    def __call__(self, choices: int, signals: Signals) -> Decision:
        self.index += 1
        if self.first < self.index <= self.last and signals.computed_last:
            self._learn(signals)
        if not self.first <= self.index < self.last:
            return Decision(0, "")
        self.input_change = signals.input_change_since_computed() if self.computed else 0.0
        if not self.rate or not self.input_change:
            return Decision(0, "ucache: no rate of change is known yet")
        change = self.rate * self.input_change / self._scale(signals) * (1 + 0.5 * self.skipped)
        self.error += change
        threshold = self._threshold()
        measured = f"ucache: error {self.error:.3g}"
        if self.error < threshold:
            self.skipped += 1
            return Decision(1, f"{measured} < {threshold:g}")
        self.error = 0.0
        return Decision(0, f"{measured} >= {threshold:g}")

    def _learn(self, signals: Signals) -> None:
        """What the step before this one, which was computed, tells."""
        change = signals.output_change() if self.computed else 0.0
        if change > 0:
            before = self.mean_change or change
            self.mean_change = 0.8 * before + 0.2 * change
            if self.input_change > 0:
                self.rate = change / self.input_change
        self.computed, self.skipped = self.computed + 1, 0

    def _scale(self, signals: Signals) -> float:
        size = max(signals.output_size(), 1e-6)
        return sqrt(size * max(self.policy.gain * self.mean_change, 1e-6))

    def _threshold(self) -> float:
        share = self.computed / self.num_steps
        times = self.policy.early if share < 0.2 else self.policy.late if share > 0.8 else 1.0
        return self.policy.threshold * times
