"""The Hybrid-Grained Cache (2511.11031): whole blocks between key steps, ControlNet residuals with
them, cross-attention and the prompt-free branch fused at a gate step.

Which steps are key steps is told by numbers here; finding them from measured similarity is the
calibration's business.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import PresetError
from ..graph import BlockGraph
from ..schedule import Cross, Schedule, StepPlan


@dataclass(frozen=True)
class HGC:
    """The numbers of the policy.

    Both steps at the gate are key steps: before it, every cross-attention must be there to be fused;
    after it, nothing that was made for two branches is left to reuse.

    dense: the first steps, all computed in full (a share of the run).
    interval: after them, every so many steps is a key step.
    cut: how many of the last up layers a partial step computes.
    gate: the share of the run after which one branch is left; 1 keeps both to the end.
    """

    dense: float = 0.16
    interval: int = 2
    cut: int = 2
    gate: float = 0.6

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        self._check(graph)
        first_partial = max(1, round(self.dense * num_inference_steps))
        gate = self._gate(graph, num_inference_steps)
        steps, since_key = [], 0
        for i in range(num_inference_steps):
            key = i < first_partial or i in (gate - 1, gate) or since_key + 1 >= self.interval
            since_key = 0 if key else since_key + 1
            steps.append(self._step(graph, i, gate, key))
        return Schedule("hgc", tuple(steps))

    def _gate(self, graph: BlockGraph, num_inference_steps: int) -> int:
        """The first step of one branch; the run's length where there is none."""
        if graph.branches == 1 or self.gate >= 1:
            return num_inference_steps
        return max(1, round(self.gate * num_inference_steps))

    def _step(self, graph: BlockGraph, index: int, gate: int, key: bool) -> StepPlan:
        reuse = set(graph.names("hint") if index else ())
        if not key:
            reuse.add(graph.cuts[self.cut - 1])
        label = "key" if key else f"cut {self.cut}"
        if index >= gate:
            return StepPlan(frozenset(reuse), 1, "fused", label + " gated")
        cross: Cross = "fuse" if index == gate - 1 else "compute"
        return StepPlan(frozenset(reuse), graph.branches, cross, label)

    def _check(self, graph: BlockGraph) -> None:
        if not 1 <= self.cut <= len(graph.cuts):
            raise PresetError(
                f"cut={self.cut} is not possible; this model has cuts 1 to {len(graph.cuts)}"
            )
        if self.interval < 1 or not 0 <= self.dense <= 1 or not 0 < self.gate <= 1:
            raise PresetError(f"{self}: interval must be 1 or more, dense in 0..1, gate in (0, 1]")
