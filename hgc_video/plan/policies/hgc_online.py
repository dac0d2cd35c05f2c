"""HGC with refresh moments found at run time: a partial step follows while the outermost block has
drifted little since the last key step ("moments chosen by feature similarity", 2511.11031).

The drift of a step is known when the next one begins, so that nothing waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import PresetError
from ..adaptive import AdaptivePlan, Signals, exact_choices
from ..graph import BlockGraph
from ..schedule import StepPlan


@dataclass(frozen=True)
class HGCOnline:
    """threshold: the relative L1 drift that calls for a key step; max_consecutive: the most partial
    steps in a row; dense, cut, gate: as for hgc."""

    threshold: float = 0.1
    max_consecutive: int = 4
    dense: float = 0.16
    cut: int = 1
    gate: float = 1.0

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> AdaptivePlan:
        """The plan of a run."""
        if self.threshold < 0 or self.max_consecutive < 1 or not 0 < self.gate <= 1:
            raise PresetError(
                f"hgc-online: threshold 0 or more, max_consecutive 1 or more, gate in (0, 1]: {self}"
            )
        if not 1 <= self.cut <= len(graph.cuts):
            raise PresetError(
                f"hgc-online: this model has cuts 1 to {len(graph.cuts)}, got {self.cut}"
            )
        gated = graph.branches == 2 and self.gate < 1
        gate = max(1, round(self.gate * num_inference_steps)) if gated else num_inference_steps + 1
        choices = tuple(
            self._choices(graph, i, num_inference_steps, gate) for i in range(num_inference_steps)
        )
        return AdaptivePlan(
            "hgc-online",
            exact_choices(choices, graph),
            lambda: _Decider(self.threshold, self.max_consecutive),
        )

    def _choices(
        self, graph: BlockGraph, i: int, num_inference_steps: int, gate: int
    ) -> tuple[StepPlan, ...]:
        cross = graph.attention_names("cross")
        cut = frozenset({graph.cuts[self.cut - 1]})
        if i >= gate:
            key = StepPlan(cross, branches=1, label="key gated")
            partial = StepPlan(cut | cross, branches=1, label=f"cut {self.cut} gated")
        else:
            merge = cross if i == gate - 1 else frozenset()
            key = StepPlan(merge=merge, branches=graph.branches, label="key")
            partial = StepPlan(cut, branches=graph.branches, label=f"cut {self.cut}")
        forced = i < max(1, round(self.dense * num_inference_steps)) or i in (gate - 1, gate)
        return (key,) if forced else (key, partial)


@dataclass
class _Decider:
    threshold: float
    max_consecutive: int
    consecutive: int = 0

    def __call__(self, choices: int, signals: Signals) -> int:
        """The key step (0), or the partial one (1) while the drift is small."""
        if choices == 1 or self.consecutive >= self.max_consecutive:
            self.consecutive = 0
            return 0
        if self.consecutive and signals.drift() > self.threshold:
            self.consecutive = 0
            return 0
        self.consecutive += 1
        return 1
