"""The Hybrid-Grained Cache (2511.11031): whole blocks between key steps, ControlNet residuals with
them, cross-attention and the prompt-free branch fused at a gate step.

Of the paper only the abstract and summaries were to be had, no equations and no code, so this is a
reconstruction: what each field stands on is said beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from ...errors import PresetError
from ..exact import add_exact
from ..graph import BlockGraph
from ..schedule import Anchors, Schedule, StepPlan
from ..similarity import load_similarity, refresh_moments


@dataclass(frozen=True)
class HGC:
    """The numbers of the policy.

    Both steps at the gate are key steps: before it, every cross-attention must be there to be fused;
    after it, the blocks are made once for the one branch that is left.

    dense: the first steps, all computed in full (a share of the run).
    interval: after them, every so many steps is a key step.
    threshold, calibration: instead of `interval`, a key step wherever the change measured for the
        cut's tensor, summed since the last one, exceeds the threshold ("moments chosen by feature
        similarity"; the rule is Block Caching's eq. 7).
    cut: how many of the last up layers a partial step computes.
    lambda_inter: instead of `cut`, the share of the up blocks that a partial step refreshes, outermost
        first; lambda_intra: the share of the transformer and motion layers inside them that is
        computed, the others add their kept contribution (the paper names the two densities only).
    controlnet_interval: the ControlNet runs at every so many key steps; 0 lets it follow what is read.
    cross_interval: before the gate, cross-attention is computed at every so many steps.
    gate: the share of the run after which one branch is left; 1 keeps both to the end.
    difference_interval: with k > 0, after the gate both branches are computed at every k-th step and
        their difference is added again in between, instead of dropping guidance.
    slope: what is reused is extrapolated by this much of the last change per step; 0 holds it.
    online: the steps since are measured by how far the latents have come, instead of counted.
    anchor_stride: with more than 1, cross-attention is computed for every so many frames and
        interpolated between them.
    """

    dense: float = 0.16
    interval: int = 2
    threshold: float = 0.0
    calibration: str = ""
    cut: int = 2
    lambda_inter: float = 0.0
    lambda_intra: float = 1.0
    controlnet_interval: int = 0
    cross_interval: int = 1
    gate: float = 0.6
    difference_interval: int = 0
    slope: float = 0.0
    online: bool = False
    anchor_stride: int = 1

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        self._check(graph)
        gate = self._gate(graph, num_inference_steps)
        keys = self._keys(graph, num_inference_steps, gate)
        steps = [self._step(graph, i, gate, keys) for i in range(num_inference_steps)]
        steps = self._rest_controlnet(graph, steps, keys, gate)
        if self.slope:
            steps = self._extrapolate(graph, steps, keys)
        anchors = Anchors(self.anchor_stride) if self.anchor_stride > 1 else None
        return add_exact(Schedule("hgc", tuple(steps), anchors=anchors), graph)

    def _gate(self, graph: BlockGraph, num_inference_steps: int) -> int:
        """The first step of one branch; beyond the run where there is none."""
        if graph.branches != 2 or self.gate >= 1:
            return num_inference_steps + 1
        return max(1, round(self.gate * num_inference_steps))

    def _keys(self, graph: BlockGraph, num_inference_steps: int, gate: int) -> list[int]:
        """The key steps, in order."""
        dense = max(1, round(self.dense * num_inference_steps))
        chosen = set(range(min(dense, num_inference_steps)))
        chosen |= {i for i in (gate - 1, gate) if i < num_inference_steps}
        if self.difference_interval:
            chosen |= set(range(gate, num_inference_steps, self.difference_interval))
        if self.threshold:
            measured = load_similarity(self.calibration).of(self._cut(graph), num_inference_steps)
            rest = (0.0, *measured[dense:])
            chosen |= {dense - 1 + m for m in refresh_moments(rest, self.threshold)}
            return sorted(chosen)
        since = 0
        for i in range(num_inference_steps):
            if i in chosen or since + 1 >= self.interval:
                chosen.add(i)
                since = 0
            else:
                since += 1
        return sorted(chosen)

    def _cut(self, graph: BlockGraph) -> str:
        """The tensor that a partial step takes from the store."""
        return graph.cuts[self._depth(graph) - 1]

    def _depth(self, graph: BlockGraph) -> int:
        if not self.lambda_inter:
            return self.cut
        return sum(graph.blocks[: max(1, ceil(self.lambda_inter * len(graph.blocks)))])

    def _step(self, graph: BlockGraph, index: int, gate: int, keys: list[int]) -> StepPlan:
        key, gated = index in keys, index >= gate
        reuse: set[str] = set() if key else {self._cut(graph)}
        label = "key" if key else f"cut {self._depth(graph)}"
        contributions = frozenset() if key else self._sparse(graph)
        cross = graph.attention_names("cross")
        if not gated:
            if index == gate - 1 and not self.difference_interval:
                return StepPlan(frozenset(reuse), contributions, merge=cross, label=label)
            if index % self.cross_interval:
                reuse |= cross
            return StepPlan(frozenset(reuse), contributions, branches=graph.branches, label=label)
        if self.difference_interval and (index - gate) % self.difference_interval == 0:
            return StepPlan(frozenset(reuse), contributions, label=f"{label} guided")
        difference = (1.0, 1.0) if self.difference_interval else None
        kept = frozenset(reuse) if self.difference_interval else frozenset(reuse | cross)
        return StepPlan(
            kept, contributions, branches=1, difference=difference, label=f"{label} gated"
        )

    def _sparse(self, graph: BlockGraph) -> frozenset[str]:
        """The layers of a refreshed block that add their kept contribution, the earlier ones first."""
        if self.lambda_intra >= 1:
            return frozenset()
        names = [layer.name for layer in graph.layers]
        inside = [
            la for la in graph.layers[names.index(self._cut(graph)) + 1 :] if la.has_contribution
        ]
        fresh = round(self.lambda_intra * len(inside))
        return frozenset(la.name for la in inside[: len(inside) - fresh])

    def _rest_controlnet(
        self, graph: BlockGraph, steps: list[StepPlan], keys: list[int], gate: int
    ) -> list[StepPlan]:
        """Lets the ControlNet's residuals be reused but at its own moments among the key steps; after
        the gate as before it, with a fresh start for the branch that is left."""
        if not self.controlnet_interval:
            return steps
        before = [key for key in keys if key < gate]
        after = [key for key in keys if key >= gate]
        own = {*before[:: self.controlnet_interval], *after[:: self.controlnet_interval]}
        own |= {
            i for i in after if steps[i].branches == 2
        }  # made for one they would not do for both
        residuals = frozenset(graph.residuals())
        return [s if i in own else s.with_reuse(residuals) for i, s in enumerate(steps)]

    def _extrapolate(
        self, graph: BlockGraph, steps: list[StepPlan], keys: list[int]
    ) -> list[StepPlan]:
        """Gives every partial step that has two key steps behind it its share of their slope, per step
        since the last one (TaylorSeer order 1, 2503.06923; damped as HiCache, 2508.16984)."""
        told = []
        for i, step in enumerate(steps):
            past = [key for key in keys if key <= i]
            if i in keys or len(past) < 2:
                told.append(step)
                continue
            older, newer = past[-2:]
            ahead = 1.0 if self.online else (i - newer) / (newer - older)
            sloped = frozenset({self._cut(graph)}) | step.contributions
            follow = (older, newer) if self.online else None
            told.append(
                replace(step, extrapolate=sloped, slope=round(self.slope * ahead, 6), follow=follow)
            )
        return told

    def _check(self, graph: BlockGraph) -> None:
        if not 1 <= self._depth(graph) <= len(graph.cuts):
            raise PresetError(
                f"cut={self.cut} is not possible; this model has cuts 1 to {len(graph.cuts)}"
            )
        shares = (self.dense, self.lambda_inter, self.lambda_intra)
        if not all(0 <= share <= 1 for share in shares) or not 0 < self.gate <= 1:
            raise PresetError(
                f"{self}: dense, lambda_inter and lambda_intra must be in 0..1, gate in (0, 1]"
            )
        whole = (self.interval, self.cross_interval, self.anchor_stride)
        if min(whole) < 1 or min(self.controlnet_interval, self.difference_interval) < 0:
            raise PresetError(
                f"{self}: interval, cross_interval and anchor_stride must be 1 or more"
            )
        if self.threshold and not self.calibration:
            raise PresetError("hgc: threshold needs calibration=FILE with the measured changes")
