"""DeepCache (2312.00858): the outermost layers every step, everything deeper at key steps.

As the released plug-in (horseee/DeepCache) does, the ControlNet runs whole at every step and the
motion modules of the block whose output is reused run again on the tensors kept for them; `+lossless` leaves
out what nobody reads. With a ControlNet, `controlnet_interval` lets it rest in between.
"""

from __future__ import annotations

import cmath
from typing import ClassVar

from pydantic import Field, field_validator

from ...errors import PresetError
from ..graph import BlockGraph, Layer
from ..schedule import Schedule, StepPlan
from .base import SchedulePolicy


class DeepCache(SchedulePolicy):
    """The outermost layers at every step, everything deeper at key steps."""

    spelling: ClassVar[str] = "deepcache"
    source: ClassVar[str] = "2312.00858"

    interval: int = Field(3, ge=1, description="every so many steps is a key step (eq. 6)")
    branch: int = Field(
        0, ge=0, description="skip branch that is reused; 0 keeps only the last up layer"
    )
    pow: float = Field(
        0.0,
        ge=0,
        description="above 1: key steps are denser around center (eq. 7); 0 spreads them evenly",
    )
    center: float = Field(15.0, description="the step around which key steps are denser, with pow")
    controlnet_interval: int = Field(
        1, ge=1, description="the ControlNet runs at every so many steps; 1 as released"
    )

    @field_validator("pow")
    @classmethod
    def _no_power_below_one(cls, value: float) -> float:
        if 0 < value <= 1:
            raise ValueError(f"pow must be above 1, or 0 for even intervals, got {value:g}")
        return value

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        self._check(graph)
        keys = set(self.key_steps(num_inference_steps))
        partial = _partial(graph, self.branch)
        every = f"every {self.interval} steps" if not self.pow else f"denser around {self.center:g}"
        full = StepPlan(
            branches=graph.branches, label="key", reason=f"deepcache: key step, {every}"
        )
        residuals, steps = frozenset(graph.residuals()), []
        why = f"the ControlNet runs every {self.controlnet_interval} steps"
        for i in range(num_inference_steps):
            step = full if i in keys else partial
            steps.append(
                step if i % self.controlnet_interval == 0 else step.with_reuse(residuals, why)
            )
        return Schedule("deepcache", tuple(steps), lossless=False)

    def key_steps(self, num_inference_steps: int) -> list[int]:
        """The steps that compute everything."""
        if not self.pow:
            return list(range(0, num_inference_steps, self.interval))
        return _around_center(num_inference_steps, self.interval, self.center, self.pow)

    def _check(self, graph: BlockGraph) -> None:
        if self.branch >= len(graph.depths):
            raise PresetError(
                f"deepcache: this model has branches 0 to {len(graph.depths) - 1}, got {self.branch}"
            )


def _around_center(steps: int, interval: int, center: float, power: float) -> list[int]:
    """The released non-uniform sequence. The root of the negative start is taken in the complex plane
    and the real part of the way back, cut to a whole number, is what counts; a signed power gives
    other steps. A power at which steps coincide is lowered, as in the release."""
    count = -(-steps // interval)
    while power > 1:
        start = cmath.exp(cmath.log(-center) / power) if center else 0j
        end = (steps - center) ** (1 / power)
        ways = [start + (end - start) * k / count for k in range(count + 1)]
        offsets = sorted({int((way**power).real) for way in ways})
        found = [0, *(offset + round(center) for offset in offsets[1:-1])]
        if len(found) == count:
            return found
        power -= 0.02
    raise PresetError(
        f"deepcache: no {count} different key steps of {steps} around {center:g}; "
        "use another pow or center"
    )


def _partial(graph: BlockGraph, branch: int) -> StepPlan:
    reused = graph.by_name[graph.depths[branch]]
    reuse, also = {reused.name}, set()
    if reused.kind == "motion":  # the plug-in does not wrap motion modules
        reuse = {reused.inputs[0]}
        for layer in (*_before(graph, reused), *_mirrored(graph, branch)):
            reuse.add(layer.inputs[0])
            also.add(layer.name)
    return StepPlan(
        frozenset(reuse), branches=graph.branches, always_compute=frozenset(also),
        label=f"depth {branch + 1}",
        reason=f"deepcache: between key steps, skip branch {branch} is reused",
    )  # fmt: skip


def _before(graph: BlockGraph, layer: Layer) -> list[Layer]:
    """The motion modules of a layer's up block that come before it."""
    block = layer.name.rsplit(".", 2)[0]
    before = graph.layers[: graph.layers.index(layer)]
    return [la for la in before if la.kind == "motion" and la.name.startswith(f"{block}.")]


def _mirrored(graph: BlockGraph, branch: int) -> list[Layer]:
    """The motion modules behind the branch's skip in the down block on the other side."""
    block, layer = 0, branch
    while layer >= graph.blocks[block]:
        layer -= graph.blocks[block]
        block += 1
    motions = [
        la for la in graph.layers
        if la.kind == "motion" and la.name.startswith(f"unet.down_blocks.{block}.")
    ]  # fmt: skip
    return motions[layer:] if layer else []
