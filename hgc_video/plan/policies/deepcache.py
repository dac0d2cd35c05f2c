"""DeepCache (2312.00858): the outermost layers every step, everything deeper at key steps.

As the released plug-in (horseee/DeepCache) does, the ControlNet runs whole at every step and the
motion modules of the block that is cut run again on the tensors kept for them; `+lossless` leaves
out what nobody reads. With a ControlNet, `controlnet_interval` lets it rest in between.
"""

from __future__ import annotations

import cmath
from dataclasses import dataclass

from ...errors import PresetError
from ..graph import BlockGraph, Layer
from ..schedule import Schedule, StepPlan


@dataclass(frozen=True)
class DeepCache:
    """Key steps every `interval` (eq. 6), or with `pow` > 1 denser around the step `center` (eq. 7);
    `branch` 0 keeps only the last up layer."""

    interval: int = 3
    branch: int = 0
    pow: float = 0.0
    center: float = 15.0
    controlnet_interval: int = 1

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        self._check(graph)
        keys = set(self.key_steps(num_inference_steps))
        partial = _partial(graph, self.branch)
        full = StepPlan(branches=graph.branches, label="key")
        resting = frozenset(graph.residuals())
        steps = []
        for i in range(num_inference_steps):
            step = full if i in keys else partial
            steps.append(step if i % self.controlnet_interval == 0 else step.with_reuse(resting))
        return Schedule("deepcache", tuple(steps), lossless=False)

    def key_steps(self, num_inference_steps: int) -> list[int]:
        """The steps that compute everything."""
        if not self.pow:
            return list(range(0, num_inference_steps, self.interval))
        return _around_center(num_inference_steps, self.interval, self.center, self.pow)

    def _check(self, graph: BlockGraph) -> None:
        if self.interval < 1 or self.controlnet_interval < 1:
            raise PresetError(f"deepcache: intervals must be 1 or more, got {self}")
        if not 0 <= self.branch < len(graph.cuts):
            raise PresetError(
                f"deepcache: this model has branches 0 to {len(graph.cuts) - 1}, got {self.branch}"
            )
        if self.pow and self.pow <= 1:
            raise PresetError(
                f"deepcache: pow must be above 1, or 0 for even intervals, got {self.pow}"
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
        f"deepcache: no {count} different key steps of {steps} around {center}; "
        "use another pow or center"
    )


def _partial(graph: BlockGraph, branch: int) -> StepPlan:
    cut = graph.by_name[graph.cuts[branch]]
    reuse, also = {cut.name}, set()
    if cut.kind == "motion":  # the plug-in does not wrap motion modules
        reuse = {cut.inputs[0]}
        for layer in (*_before(graph, cut), *_mirrored(graph, branch)):
            reuse.add(layer.inputs[0])
            also.add(layer.name)
    return StepPlan(
        frozenset(reuse), branches=graph.branches, also=frozenset(also), label=f"cut {branch + 1}"
    )


def _before(graph: BlockGraph, cut: Layer) -> list[Layer]:
    """The motion modules of the cut's up block that come before it."""
    block = cut.name.rsplit(".", 2)[0]
    before = graph.layers[: graph.layers.index(cut)]
    return [la for la in before if la.kind == "motion" and la.name.startswith(f"{block}.")]


def _mirrored(graph: BlockGraph, branch: int) -> list[Layer]:
    """The motion modules behind the cut in the down block on the other side, if that block is entered."""
    block, layer = 0, branch
    while layer >= graph.blocks[block]:
        layer -= graph.blocks[block]
        block += 1
    motions = [
        la for la in graph.layers
        if la.kind == "motion" and la.name.startswith(f"unet.down_blocks.{block}.")
    ]  # fmt: skip
    return motions[layer:] if layer else []
