"""HGC with refresh moments found at run time: a partial step follows while the outermost block has
drifted little since the last key step ("moments chosen by feature similarity", 2511.11031).

The drift of a step is known when the next one begins, so that nothing waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from ...errors import PresetError
from ..adaptive import AdaptivePlan, Decision, Signals
from ..graph import BlockGraph
from ..schedule import StepPlan
from .base import Policy
from .lossless import add_lossless_to_choices


class HGCOnline(Policy):
    """hgc with key steps found at run time."""

    spelling: ClassVar[str] = "hgc-online"
    source: ClassVar[str] = "2511.11031"
    old_names: ClassVar[dict[str, str]] = {"cut": "depth"}

    threshold: float = Field(0.1, ge=0, description="relative L1 drift that calls for a key step")
    max_consecutive: int = Field(4, ge=1, description="the most partial steps in a row")
    dense: float = Field(
        0.16, ge=0, le=1, description="share of the run at its start that is computed in full"
    )
    depth: int = Field(
        1, ge=1, description="how many of the last up layers a partial step computes"
    )
    gate: float = Field(
        1.0, gt=0, le=1, description="share of the run after which one branch is left; 1 keeps both"
    )

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> AdaptivePlan:
        """The plan of a run."""
        if self.depth > len(graph.depths):
            raise PresetError(
                f"hgc-online: depth={self.depth} is not possible; this model has depths 1 to "
                f"{len(graph.depths)}"
            )
        gated = graph.branches == 2 and self.gate < 1
        gate = max(1, round(self.gate * num_inference_steps)) if gated else num_inference_steps + 1
        choices = tuple(
            self._choices(graph, i, num_inference_steps, gate) for i in range(num_inference_steps)
        )
        return AdaptivePlan(
            "hgc-online",
            add_lossless_to_choices(choices, graph),
            lambda: _Decider(self.threshold, self.max_consecutive),
        )

    def _choices(
        self, graph: BlockGraph, i: int, num_inference_steps: int, gate: int
    ) -> tuple[StepPlan, ...]:
        cross = graph.attention_names("cross")
        reused = frozenset({graph.depths[self.depth - 1]})
        label, dense = f"depth {self.depth}", max(1, round(self.dense * num_inference_steps))
        if i >= gate:
            why = f"after the gate at step {gate}: one branch"
            key = StepPlan(cross, branches=1, label="key gated", reason=why)
            partial = StepPlan(reused | cross, branches=1, label=f"{label} gated", reason=why)
        else:
            merge = cross if i == gate - 1 else frozenset()
            key = StepPlan(average_branches=merge, branches=graph.branches, label="key")
            partial = StepPlan(reused, branches=graph.branches, label=label)
        if i < dense:
            return (key.because(f"hgc-online: one of the first {dense} steps"),)
        return (key.because("hgc-online: the gate"),) if i in (gate - 1, gate) else (key, partial)


@dataclass
class _Decider:
    threshold: float
    max_consecutive: int
    consecutive: int = 0

    def __call__(self, choices: int, signals: Signals) -> Decision:
        """The key step (0), or the partial one (1) while the drift is small."""
        if choices == 1:
            self.consecutive = 0
            return Decision(0, "")
        if self.consecutive >= self.max_consecutive:
            reason = f"hgc-online: key step after {self.consecutive} partial steps"
            self.consecutive = 0
            return Decision(0, reason)
        drift = signals.drift() if self.consecutive else 0.0
        if drift > self.threshold:
            self.consecutive = 0
            return Decision(0, f"hgc-online: drift {drift:.3g} > {self.threshold:g}")
        self.consecutive += 1
        return Decision(1, f"hgc-online: drift {drift:.3g} <= {self.threshold:g}")
