"""SADA (2507.17135, ICML 2025; Ting-Justin-Jiang/sada-icml): early, steps are skipped at run time where the
path of the latents is stable; later, three of four are, by a polynomial through earlier steps.

What is forecast is the prediction of the clean latents. A step that is skipped early holds it; the release
also adds a third-order correction of the latents, and prunes tokens of steps that it computes, which its
settings for UNets hardly do. Its step numbers, given for 50 steps, are shares of the run here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from ..adaptive import AdaptivePlan, Decision, Signals
from ..graph import BlockGraph
from ..schedule import StepPlan
from .base import Policy
from .whole_steps import lagrange


class SADA(Policy):
    """Whole steps are skipped by the stability of the latents' path, then three of four."""

    spelling: ClassVar[str] = "sada"
    source: ClassVar[str] = "2507.17135"

    start: float = Field(0.2, ge=0, le=1, description="share of the run before anything is skipped")
    fixed: float = Field(
        0.48, ge=0, le=1, description="share of the run where the fixed skips begin"
    )
    end: float = Field(
        0.94, ge=0, le=1, description="share of the run after which nothing is skipped"
    )
    interval: int = Field(
        4, ge=2, description="of the fixed skips: every so many steps is computed"
    )
    terms: int = Field(4, ge=1, description="steps that the polynomial goes through")
    max_consecutive: int = Field(4, ge=1, description="the most skipped steps in a row")

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> AdaptivePlan:
        """The plan of a run."""
        # A step is decided on by what is known after the one before it.
        first, fixed, last = (
            max(3, round(share * num_inference_steps)) + 1
            for share in (self.start, self.fixed, self.end)
        )
        choices = tuple(
            self._choices(graph, i, first, fixed, min(last, num_inference_steps))
            for i in range(num_inference_steps)
        )
        return AdaptivePlan(
            "sada", choices, lambda: _Decider(self.max_consecutive, fixed), lossless=False
        )

    def _choices(
        self, graph: BlockGraph, i: int, first: int, fixed: int, last: int
    ) -> tuple[StepPlan, ...]:
        compute = StepPlan(branches=graph.branches)
        residuals = frozenset(graph.residuals())
        if not first <= i < last:
            why = f"sada: not among the steps {first} to {last - 1}"
            return (compute.because(why),)
        if i < fixed:
            held = StepPlan(residuals, branches=graph.branches, clean=((i - 1, 1.0),), label="held")
            return compute, held
        nodes = [j for j in range(i) if j % self.interval == 1][-self.terms :]
        if i % self.interval == 1 or not nodes:
            return (compute.because(f"sada: one step in {self.interval} is computed"),)
        rule = lagrange(((node, node) for node in nodes), i)
        clean = tuple((node, round(value, 9)) for node, value in rule.items())
        through = StepPlan(residuals, branches=graph.branches, clean=clean, label="lagrange")
        return compute, through


@dataclass
class _Decider:
    max_consecutive: int
    fixed: int
    index: int = -1
    skipped: int = 0  # in a row

    def __call__(self, choices: int, signals: Signals) -> Decision:
        self.index += 1
        if choices == 1:
            self.skipped = 0
            return Decision(0, "")
        if self.skipped >= self.max_consecutive:
            reason = f"sada: computed after {self.skipped} skipped steps"
            self.skipped = 0
            return Decision(0, reason)
        if self.index >= self.fixed:
            self.skipped += 1
            return Decision(1, "sada: the polynomial through earlier steps")
        stability = signals.stability()
        if stability > 0:
            self.skipped = 0
            return Decision(0, f"sada: criterion {stability:.3g} > 0")
        self.skipped += 1
        return Decision(1, f"sada: criterion {stability:.3g} <= 0")
