"""T-GATE (2404.02747; HaozheLiu-ST/T-GATE 1.0.0): cross-attention is fixed after a gate step, and
guidance with it; self-attention may be reused in between.

The release calls every attention without a text self-attention, a motion module's too; here spatial
and temporal attention are kept apart, and temporal attention is computed unless asked otherwise.
Nothing is said of ControlNets by its authors: theirs follow the UNet's branches and are computed whole.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import PresetError
from ..graph import BlockGraph
from ..schedule import Schedule, StepPlan


@dataclass(frozen=True)
class TGate:
    """gate: this many steps compute both branches, the last of them keeps the attentions' means.
    warm_up, sp_interval: from step `warm_up` on spatial self-attention is computed at every
    `sp_interval`-th step before the gate, and at every `fi_interval`-th after it.
    temporal_interval: the same for the motion modules' attention before the gate.
    """

    gate: int = 10
    warm_up: int = 2
    sp_interval: int = 5
    fi_interval: int = 1
    temporal_interval: int = 1

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        intervals = (self.sp_interval, self.fi_interval, self.temporal_interval)
        if self.gate < 1 or self.warm_up < 0 or min(intervals) < 1:
            raise PresetError(f"tgate: gate and intervals must be 1 or more, got {self}")
        if graph.branches != 2:
            raise PresetError(
                "tgate gates guidance, and this run has none; set guidance_scale above 1"
            )
        steps = tuple(self._step(graph, i) for i in range(num_inference_steps))
        return Schedule("tgate", steps, lossless=False)

    def _step(self, graph: BlockGraph, i: int) -> StepPlan:
        cross = graph.attention_names("cross")
        if i == self.gate - 1:
            reused_later = cross | graph.attention_names("spatial", "temporal")
            return StepPlan(merge=reused_later, label="gate")
        resting = frozenset().union(*self._resting(graph, i))
        if i >= self.gate:
            return StepPlan(reuse=resting | cross, branches=1, label="gated")
        return StepPlan(reuse=resting, label="attention held" if resting else "full")

    def _resting(self, graph: BlockGraph, i: int) -> list[frozenset[str]]:
        """Self-attentions that are not computed at step i."""
        before = i < self.gate
        intervals = {
            "spatial": self.sp_interval if before else self.fi_interval,
            "temporal": self.temporal_interval if before else 1,
        }
        if before and i <= self.warm_up:
            return []
        return [graph.attention_names(kind) for kind, n in intervals.items() if i % n]
