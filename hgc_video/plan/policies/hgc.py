"""The Hybrid-Grained Cache (2511.11031): whole blocks between key steps, ControlNet residuals with
them, cross-attention and the unconditional branch fused at a gate step.

Of the paper only the abstract and summaries could be read, no equations and no code, so this is a
reconstruction: what each field stands on is said in its description.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from ...errors import PresetError
from ..calibration import load_changes, refresh_steps
from ..coefficients import linear
from ..graph import BlockGraph
from ..schedule import Anchors, Schedule, StepPlan
from .base import SchedulePolicy
from .lossless import add_lossless


class HGC(SchedulePolicy):
    """Blocks, ControlNet, cross-attention and guidance together.

    Both steps at the gate are key steps: before it, every cross-attention must be there to be fused;
    after it, the blocks are made once for the one branch that is left.
    """

    spelling: ClassVar[str] = "hgc"
    source: ClassVar[str] = "2511.11031"
    old_names: ClassVar[dict[str, str]] = {"cut": "depth"}

    dense: float = Field(
        0.16, ge=0, le=1, description="share of the run at its start that is computed in full"
    )
    interval: int = Field(2, ge=1, description="after them every so many steps is a key step")
    threshold: float = Field(
        0.0, ge=0, description="instead of interval: a key step where the calibrated change since the last "
        "one exceeds this (Block Caching eq. 7); needs calibration",
    )  # fmt: skip
    calibration: str = Field("", description="what hgc-video calibrate wrote, for threshold")
    depth: int = Field(
        2, ge=1, description="how many of the last up layers a partial step computes"
    )
    lambda_inter: float = Field(
        0.0, ge=0, le=1, description="instead of depth: the share of the up blocks that a partial step "
        "computes, outermost first (the paper names the density only)",
    )  # fmt: skip
    lambda_intra: float = Field(
        1.0, ge=0, le=1, description="share of the transformer and motion layers in them that is computed; "
        "the others add their stored delta (the paper names the density only)",
    )  # fmt: skip
    controlnet_interval: int = Field(
        0,
        ge=0,
        description="the ControlNet runs at every so many key steps; 0 follows what is read",
    )
    cross_interval: int = Field(
        1, ge=1, description="before the gate cross-attention is computed at every so many steps"
    )
    gate: float = Field(
        0.6, gt=0, le=1, description="share of the run after which one branch is left; 1 keeps both"
    )
    difference_interval: int = Field(
        0, ge=0, description="k > 0: after the gate both branches are computed at every k-th step and "
        "their difference is added again in between, instead of dropping guidance",
    )  # fmt: skip
    slope: float = Field(
        0.0,
        description="extrapolation weight per step of what is reused (TaylorSeer order 1); 0 holds it",
    )
    online: bool = Field(
        False,
        description="steps since the last key step are measured by how far the latents have come",
    )
    anchor_stride: int = Field(
        1, ge=1, description="cross-attention for every so many frames, interpolated between them"
    )

    @model_validator(mode="after")
    def _needs_calibration(self) -> HGC:
        if self.threshold and not self.calibration:
            raise ValueError("threshold needs calibration=FILE with the measured changes")
        return self

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        if not 1 <= self._depth(graph) <= len(graph.depths):
            raise PresetError(
                f"hgc: depth={self.depth} is not possible; this model has depths 1 to {len(graph.depths)}"
            )
        gate = self._gate(graph, num_inference_steps)
        keys = self._keys(graph, num_inference_steps, gate)
        steps = [self._step(graph, i, gate, keys) for i in range(num_inference_steps)]
        steps = self._rest_controlnet(graph, steps, keys, gate)
        if self.slope:
            steps = self._extrapolate(graph, steps, list(keys))
        anchors = Anchors(self.anchor_stride) if self.anchor_stride > 1 else None
        return add_lossless(Schedule("hgc", tuple(steps), anchors=anchors), graph)

    def _gate(self, graph: BlockGraph, num_inference_steps: int) -> int:
        """The first step of one branch; beyond the run where there is none."""
        if graph.branches != 2 or self.gate >= 1:
            return num_inference_steps + 1
        return max(1, round(self.gate * num_inference_steps))

    def _keys(self, graph: BlockGraph, num_inference_steps: int, gate: int) -> dict[int, str]:
        """The key steps in order, each with its reason."""
        dense = max(1, round(self.dense * num_inference_steps))
        chosen = dict.fromkeys(range(dense), f"one of the first {dense} steps")
        for i, why in ((gate - 1, "the last step before the gate"), (gate, "the gate")):
            chosen.setdefault(i, f"{why} at step {gate}" if i != gate else f"{why}: step {gate}")
        if self.difference_interval:
            for i in range(gate, num_inference_steps, self.difference_interval):
                chosen.setdefault(i, f"every {self.difference_interval} steps after the gate")
        chosen = {i: why for i, why in chosen.items() if i < num_inference_steps}
        if self.threshold:
            measured = load_changes(Path(self.calibration), num_inference_steps)
            rest = (0.0, *measured.of(self._reused(graph))[dense:])
            for m in refresh_steps(rest, self.threshold):
                chosen.setdefault(dense - 1 + m, f"calibrated change above {self.threshold:g}")
            return dict(sorted(chosen.items()))
        since = 0
        for i in range(num_inference_steps):
            if i not in chosen and since + 1 >= self.interval:
                chosen[i] = f"every {self.interval} steps"
            since = 0 if i in chosen else since + 1
        return dict(sorted(chosen.items()))

    def _reused(self, graph: BlockGraph) -> str:
        """The tensor that a partial step takes from the store."""
        return graph.depths[self._depth(graph) - 1]

    def _depth(self, graph: BlockGraph) -> int:
        if not self.lambda_inter:
            return self.depth
        return sum(graph.blocks[: max(1, ceil(self.lambda_inter * len(graph.blocks)))])

    def _step(self, graph: BlockGraph, index: int, gate: int, keys: dict[int, str]) -> StepPlan:
        key, gated, depth = index in keys, index >= gate, self._depth(graph)
        reuse: set[str] = set() if key else {self._reused(graph)}
        label = "key" if key else f"depth {depth}"
        last = max(k for k in keys if k <= index)
        layers = "the last up layer" if depth == 1 else f"the last {depth} up layers"
        reason = f"hgc: key step, {keys[index]}" if key else (
            f"hgc: {layers}, the rest is reused from step {last}"
        )  # fmt: skip
        deltas = frozenset() if key else self._sparse(graph)
        cross = graph.attention_names("cross")
        shared: dict[str, Any] = {"label": label, "reason": reason}
        if not gated:
            if index == gate - 1 and not self.difference_interval:  # a key step
                return StepPlan(average_branches=cross, **shared)
            if index % self.cross_interval:
                reuse |= cross
            return StepPlan(frozenset(reuse), deltas, branches=graph.branches, **shared)
        if self.difference_interval and (index - gate) % self.difference_interval == 0:
            return StepPlan(**shared | {"label": f"{label} guided"})  # a key step
        difference = (1.0, 1.0) if self.difference_interval else None
        kept = frozenset(reuse) if self.difference_interval else frozenset(reuse | cross)
        shared["label"] = f"{label} gated"
        step = StepPlan(kept, deltas, branches=1, cfg_delta=difference, **shared)
        return step.because(f"after the gate at step {gate}: one branch")

    def _sparse(self, graph: BlockGraph) -> frozenset[str]:
        """The layers of a refreshed block that add their stored delta, the earlier ones first."""
        if self.lambda_intra >= 1:
            return frozenset()
        names = [layer.name for layer in graph.layers]
        inside = [la for la in graph.layers[names.index(self._reused(graph)) + 1 :] if la.has_delta]
        fresh = round(self.lambda_intra * len(inside))
        return frozenset(la.name for la in inside[: len(inside) - fresh])

    def _rest_controlnet(
        self, graph: BlockGraph, steps: list[StepPlan], keys: dict[int, str], gate: int
    ) -> list[StepPlan]:
        """Lets the ControlNet's residuals be reused but at its own moments among the key steps; after
        the gate as before it, with a fresh start for the branch that is left."""
        if not self.controlnet_interval:
            return steps
        before = [key for key in keys if key < gate]
        after = [key for key in keys if key >= gate]
        own = {*before[:: self.controlnet_interval], *after[:: self.controlnet_interval]}
        # Residuals that were made for one branch do not do for both.
        own |= {i for i in after if steps[i].branches == 2}
        residuals = frozenset(graph.residuals())
        why = f"the ControlNet runs at one key step in {self.controlnet_interval}"
        return [s if i in own else s.with_reuse(residuals, why) for i, s in enumerate(steps)]

    def _extrapolate(
        self, graph: BlockGraph, steps: list[StepPlan], keys: list[int]
    ) -> list[StepPlan]:
        """Gives every partial step that has two key steps behind it its share of their slope, per step
        since the last one (TaylorSeer order 1, 2503.06923; damped as HiCache, 2508.16984)."""
        sloped_steps = []
        for i, step in enumerate(steps):
            past = [key for key in keys if key <= i]
            if i in keys or len(past) < 2:
                sloped_steps.append(step)
                continue
            older, newer = past[-2:]
            ahead = 1.0 if self.online else (i - newer) / (newer - older)
            sloped = frozenset({self._reused(graph)}) | step.deltas
            follow = (older, newer) if self.online else None
            slope = round(self.slope * ahead, 6)
            sloped_steps.append(
                replace(
                    step, extrapolate=sloped, coefficients=linear(slope), latent_progress=follow
                ).because(f"extrapolated from steps {older} and {newer} with weight {slope:g}")
            )
        return sloped_steps
