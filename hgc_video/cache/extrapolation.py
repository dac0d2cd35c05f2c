"""The weight with which a step extrapolates what it reads, from the count of steps or from the latents."""

from __future__ import annotations

from torch import Tensor

from ..plan.graph import BlockGraph
from ..plan.liveness import latents_at
from .current_step import CurrentStep
from .latent_progress import own_latents, way


def extrapolation_weight(
    step: CurrentStep, sample: Tensor, channels: int, graph: BlockGraph
) -> float | Tensor:
    """The slope of the step's plan; where the plan measures it by the latents, it is times their progress
    since two earlier steps, per clip (b). Keeps the latents, `channels` of the UNet's input `sample`,
    where a later step measures by them."""
    work = step.work
    here, measured, slope = latents_at(work.index), work.step.latent_progress, work.step.slope
    if here not in work.keep and measured is None:
        return slope
    latents = own_latents(sample, channels, graph.branches, graph.frames_axis)
    if here in work.keep:
        step.put(here, latents, 1)
    if measured is None:
        return slope
    older, newer = (step.read_one_branch(latents_at(i)) for i in measured)
    ahead = (work.index - measured[1]) / (measured[1] - measured[0])
    return slope * way(latents, newer, older, ahead)
