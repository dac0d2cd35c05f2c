"""T-GATE (2404.02747; HaozheLiu-ST/T-GATE 1.0.0): cross-attention is fixed after a gate step, and
guidance with it; self-attention may be reused in between.

The release calls every attention without a text self-attention, a motion module's too; here spatial
and temporal attention are kept apart, and temporal attention is computed unless asked otherwise.
Nothing is said of ControlNets by its authors: theirs follow the UNet's branches and are computed whole.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ...errors import PresetError
from ..graph import BlockGraph
from ..schedule import Schedule, StepPlan
from .base import SchedulePolicy


class TGate(SchedulePolicy):
    """Cross-attention and guidance fixed after a gate step."""

    spelling: ClassVar[str] = "tgate"
    source: ClassVar[str] = "2404.02747"

    gate: int = Field(
        10,
        ge=1,
        description="so many steps compute both branches; the last of them keeps the means",
    )
    warm_up: int = Field(2, ge=0, description="up to this step every self-attention is computed")
    sp_interval: int = Field(
        5, ge=1, description="then, before the gate, spatial self-attention at every so many steps"
    )
    fi_interval: int = Field(
        1, ge=1, description="after the gate, spatial self-attention at every so many steps"
    )
    temporal_interval: int = Field(
        1, ge=1, description="before the gate, the motion modules' attention at every so many steps"
    )

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
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
            return StepPlan(
                average_branches=reused_later,
                label="gate",
                reason="tgate: the last step of both branches",
            )
        resting = frozenset().union(*self._resting(graph, i))
        if i >= self.gate:
            why = f"tgate: after the gate at step {self.gate}, cross-attention is fixed"
            return StepPlan(reuse=resting | cross, branches=1, label="gated", reason=why)
        if not resting:
            return StepPlan(reason=f"tgate: before the gate at step {self.gate}")
        why = "tgate: between the steps that compute self-attention"
        return StepPlan(reuse=resting, label="attention held", reason=why)

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
