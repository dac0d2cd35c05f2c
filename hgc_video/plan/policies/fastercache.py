"""FasterCache (2410.19355): attention is computed at every second step and extrapolated in between;
the prompt-free branch is computed at every fifth step and its difference added again in between, low
and high frequencies weighed apart."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import PresetError
from ..graph import BlockGraph
from ..schedule import Schedule, StepPlan


@dataclass(frozen=True)
class FasterCache:
    """first: the share of the run before attention is reused; slope: the weight of the extrapolation,
    which grows from 0 to this at the end. guidance_first, guidance_interval: from this share on both
    branches are computed at every so many steps. boost: how much more the low (late steps) and high
    (early steps) frequencies of the kept difference count, eq. 8-9; `turn` is where late begins.
    """

    first: float = 0.27
    slope: float = 1.0
    guidance_first: float = 0.34
    guidance_interval: int = 5
    boost: float = 0.2
    turn: float = 0.5

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        shares = (self.first, self.guidance_first, self.turn)
        if self.guidance_interval < 1 or not all(0 <= share <= 1 for share in shares):
            raise PresetError(
                f"fastercache: shares must be in 0..1 and intervals 1 or more: {self}"
            )
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
                names, branches=graph.branches, extrapolate=names, slope=slope,
                label=_label(reusing, False),
            )  # fmt: skip
        late = i > self.turn * num_inference_steps
        weights = (1 + self.boost * late, 1 + self.boost * (not late))
        return StepPlan(
            names, branches=1, difference=weights, extrapolate=names, slope=slope,
            label=_label(reusing, True),
        )  # fmt: skip


def _label(attention: bool, guidance: bool) -> str:
    words = ["attention"] * attention + ["guidance"] * guidance
    return " ".join([*words, "held"]) if words else "full"
