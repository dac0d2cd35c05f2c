"""The policies without a method: what the host computes, the same without repetitions, and a gate."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import PresetError
from ..exact import add_exact
from ..graph import BlockGraph
from ..schedule import Schedule, StepPlan


@dataclass(frozen=True)
class Full:
    """Everything at every step, through the engine: what the host itself computes, bit for bit."""

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        step = StepPlan(branches=graph.branches)
        return Schedule("full", (step,) * num_inference_steps, lossless=False)


@dataclass(frozen=True)
class Lossless:
    """Only the exact savings; `other+lossless` adds them to a published method."""

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        step = StepPlan(branches=graph.branches)
        plain = Schedule("lossless", (step,) * num_inference_steps)
        return add_exact(plain, graph)


@dataclass(frozen=True)
class Gate:
    """The prompt-free branch is dropped for good after the share `at` of the run, and nothing else
    (guidance intervals: Kynkäänniemi et al. 2404.07724)."""

    at: float = 0.4

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        if not 0 <= self.at <= 1:
            raise PresetError(f"gate: at must be in 0..1, got {self.at}")
        gate = round(self.at * num_inference_steps)
        both, one = StepPlan(branches=graph.branches), StepPlan(branches=1, label="gated")
        steps = tuple(both if i < gate else one for i in range(num_inference_steps))
        return Schedule("gate", steps, lossless=False)
