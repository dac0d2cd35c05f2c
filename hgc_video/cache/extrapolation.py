"""How far a step extrapolates what it reads, where the plan measures that by the latents."""

from __future__ import annotations

from torch import Tensor

from ..plan.graph import BlockGraph
from ..plan.liveness import latents_at
from .current_step import CurrentStep
from .latent_progress import own_latents, way


def measured_progress(
    step: CurrentStep, sample: Tensor, channels: int, graph: BlockGraph
) -> Tensor | None:
    """How far the latents have come since two earlier steps, per clip (b); None where the plan does not
    measure by them. Keeps the latents, `channels` of the UNet's input `sample`, where a later step does."""
    work = step.work
    here, measured = latents_at(work.index), work.step.latent_progress
    if here not in work.keep and measured is None:
        return None
    latents = own_latents(sample, channels, graph.branches, graph.frames_axis)
    if here in work.keep:
        step.put(here, latents, 1)
    if measured is None:
        return None
    older, newer = (step.read_one_branch(latents_at(i)) for i in measured)
    ahead = (work.index - measured[1]) / (measured[1] - measured[0])
    return way(latents, newer, older, ahead)
