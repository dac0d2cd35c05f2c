"""DeepCache (2312.00858): the outermost layers every step, everything deeper at every n-th.

The released plug-in recomputes the ControlNet whole at every step; here liveness leaves out what
nobody reads.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import PresetError
from ..graph import BlockGraph
from ..schedule import Schedule, StepPlan


@dataclass(frozen=True)
class DeepCache:
    """Uniform 1:N (eq. 6); `branch` 0 keeps only the last up layer, as the released plug-in does."""

    interval: int = 3
    branch: int = 0

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        if self.interval < 1 or not 0 <= self.branch < len(graph.cuts):
            raise PresetError(
                f"deepcache: interval must be 1 or more and branch 0 to {len(graph.cuts) - 1}, got {self}"
            )
        partial = StepPlan(
            frozenset({graph.cuts[self.branch]}), graph.branches, label=f"cut {self.branch + 1}"
        )
        full = StepPlan(branches=graph.branches, label="key")
        steps = (full if i % self.interval == 0 else partial for i in range(num_inference_steps))
        return Schedule("deepcache", tuple(steps), share_text=False)
