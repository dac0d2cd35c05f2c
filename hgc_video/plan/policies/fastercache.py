"""FasterCache (2410.19355): attention is computed at every second step and extrapolated in between;
the unconditional branch is computed at every fifth step and its difference added again in between, low
and high frequencies weighed apart."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ..coefficients import linear
from ..graph import BlockGraph
from ..schedule import Schedule, StepPlan
from .base import SchedulePolicy


class FasterCache(SchedulePolicy):
    """Attention and the guidance difference are stored and reused in between (eq. 8, 9)."""

    spelling: ClassVar[str] = "fastercache"
    source: ClassVar[str] = "2410.19355"

    first: float = Field(
        0.27, ge=0, le=1, description="share of the run before attention is reused"
    )
    slope: float = Field(
        1.0, description="extrapolation weight, which grows from 0 to this at the end of the run"
    )
    guidance_first: float = Field(
        0.34, ge=0, le=1, description="share of the run before the unconditional branch is reused"
    )
    guidance_interval: int = Field(
        5, ge=1, description="from there on both branches are computed at every so many steps"
    )
    boost: float = Field(
        0.2,
        description="how much more the low (late) and high (early) frequencies of the difference count",
    )
    turn: float = Field(0.5, ge=0, le=1, description="share of the run at which late begins")

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        steps = tuple(self._step(graph, i, num_inference_steps) for i in range(num_inference_steps))
        return Schedule("fastercache", steps, lossless=False)

    def _step(self, graph: BlockGraph, i: int, num_inference_steps: int) -> StepPlan:
        begun = max(2, round(self.first * num_inference_steps))  # two values are needed
        guidance_begun = max(1, round(self.guidance_first * num_inference_steps))
        since = i - guidance_begun
        both = graph.branches == 2 and (since < 0 or since % self.guidance_interval == 0)
        # What steps of one branch kept is of no use to both, so attention is computed there.
        reusing = i > begun and (i - begun) % 2 == 1 and not (both and since >= 0)
        names = graph.attention_names("spatial", "temporal") if reusing else frozenset()
        slope = self.slope * (i - begun) / max(1, num_inference_steps - begun) if reusing else 0.0
        if both or graph.branches != 2:
            return StepPlan(
                names, branches=graph.branches, extrapolate=names, coefficients=linear(slope),
                label=_label(reusing, False), reason=_reason(reusing, False),
            )  # fmt: skip
        late = i > self.turn * num_inference_steps
        weights = (1 + self.boost * late, 1 + self.boost * (not late))
        return StepPlan(
            names, branches=1, cfg_delta=weights, extrapolate=names, coefficients=linear(slope),
            label=_label(reusing, True), reason=_reason(reusing, True),
        )  # fmt: skip


def _label(attention: bool, guidance: bool) -> str:
    words = ["attention"] * attention + ["guidance"] * guidance
    return " ".join([*words, "held"]) if words else "full"


def _reason(attention: bool, guidance: bool) -> str:
    held = ["every second step reuses attention"] * attention
    held += ["between the steps of both branches the guidance difference is added again"] * guidance
    return f"fastercache: {', '.join(held) or 'computes everything'}"
