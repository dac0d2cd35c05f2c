"""Pyramid Attention Broadcast (2408.12588): attention outputs are reused over ranges of steps, long for
cross-attention, shorter for temporal, shortest for spatial attention; not at the ends of the run."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import PresetError
from ..graph import ATTENTION_KINDS, BlockGraph
from ..schedule import Schedule, StepPlan


@dataclass(frozen=True)
class PAB:
    """An attention is computed at every range-th step of the run; the first `skip_first` and last
    `skip_last` shares compute all. PAB246 is the published default."""

    spatial: int = 2
    temporal: int = 4
    cross: int = 6
    skip_first: float = 0.15
    skip_last: float = 0.15

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        if min(self.spatial, self.temporal, self.cross) < 1:
            raise PresetError(f"pab: ranges must be 1 or more, got {self}")
        if not (0 <= self.skip_first <= 1 and 0 <= self.skip_last <= 1):
            raise PresetError(f"pab: skip_first and skip_last are shares in 0..1, got {self}")
        steps = tuple(self._step(graph, i, num_inference_steps) for i in range(num_inference_steps))
        return Schedule("pab", steps, lossless=False)

    def _step(self, graph: BlockGraph, i: int, num_inference_steps: int) -> StepPlan:
        first = max(1, round(self.skip_first * num_inference_steps))
        last = num_inference_steps - round(self.skip_last * num_inference_steps)
        kinds = [kind for kind in ATTENTION_KINDS if i % getattr(self, kind)]
        if not first <= i < last or not kinds:
            return StepPlan(branches=graph.branches)
        return StepPlan(
            graph.attention_names(*kinds), branches=graph.branches, label=f"held {len(kinds)}/3"
        )
