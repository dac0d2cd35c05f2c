"""Faster Diffusion (2312.09608): the encoder runs at key steps, the decoder at every step with its own
time embedding; the ControlNet runs at key steps only, its residuals kept with the skips.

The release also adds 0.3 % of the initial noise in the first half (texture; not a matter of caching,
left out) and runs the decoders of a span in one batch (same numbers, more memory; left out).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ..graph import BlockGraph
from ..schedule import Schedule, StepPlan
from .base import SchedulePolicy

_KEYS = {50: (0, 1, 2, 3, 5, 10, 15, 25, 35), 20: (0, 1, 2, 3, 5, 10, 15)}


class FasterDiffusion(SchedulePolicy):
    """The encoder at key steps, the decoder at every step."""

    spelling: ClassVar[str] = "faster-diffusion"
    source: ClassVar[str] = "2312.09608"

    mod: int = Field(
        0, ge=0, description="every mod-th step is a key step; 0 takes the published ones of 50 or 20 steps "
        "(another length scales those of 50)",
    )  # fmt: skip

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        keys = self.key_steps(num_inference_steps)
        full = StepPlan(branches=graph.branches, label="key", reason="faster-diffusion: key step")
        decoder = StepPlan(
            _encoder(graph), branches=graph.branches, label="decoder",
            reason="faster-diffusion: between key steps, the encoder's outputs are reused",
        )  # fmt: skip
        steps = tuple(full if i in keys else decoder for i in range(num_inference_steps))
        return Schedule("faster-diffusion", steps, lossless=False)

    def key_steps(self, num_inference_steps: int) -> frozenset[int]:
        """The steps that compute everything."""
        if self.mod:
            return frozenset(range(0, num_inference_steps, self.mod))
        if num_inference_steps in _KEYS:
            return frozenset(_KEYS[num_inference_steps])
        return frozenset(round(key * num_inference_steps / 50) for key in _KEYS[50])


def _encoder(graph: BlockGraph) -> frozenset[str]:
    """Everything before the up path but the time embedding."""
    names = [layer.name for layer in graph.layers]
    before = graph.layers[: names.index(graph.depths[-1]) + 1]
    return frozenset(la.name for la in before if la.kind not in ("time", "join")) - {graph.output}
