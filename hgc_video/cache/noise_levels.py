"""Between a model's prediction and the clean latents that it stands for, by the scheduler's noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..errors import CacheStateError

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


class NoiseLevels:
    """alpha and sigma of x = alpha x0 + sigma noise with alpha^2 + sigma^2 = 1, as models get their latents,
    from the betas that a scheduler was trained with.

    CacheStateError where the scheduler has no such levels, or its model predicts something else.
    """

    def __init__(self, scheduler: Any) -> None:
        config = getattr(scheduler, "config", {})
        self._kind = config.get("prediction_type")
        continuous = config.get("timestep_type") == "continuous"
        self._alphas: Tensor | None = getattr(scheduler, "alphas_cumprod", None)
        if self._alphas is None or self._kind not in PREDICTION_TYPES or continuous:
            raise CacheStateError(
                f"{type(scheduler).__name__} has no noise levels by timestep, by which this policy "
                "forecasts the clean latents; choose a scheduler such as DDIMScheduler, or another policy"
            )

    def at(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """alpha and sigma at a timestep, which may lie between two."""
        assert self._alphas is not None
        t = torch.as_tensor(t).float().flatten()[:1]
        table = self._alphas.to(t.device)
        below = t.floor().long().clamp(0, len(table) - 1)
        above = (below + 1).clamp(max=len(table) - 1)
        level = torch.lerp(table[below], table[above], t - below)
        return level.sqrt(), (1 - level).sqrt()

    def beta(self, t: Tensor | float) -> Tensor:
        """The beta of a timestep."""
        assert self._alphas is not None
        at = torch.as_tensor(t).flatten()[:1].long()
        table = self._alphas.to(at.device)
        before = torch.where(at > 0, table[(at - 1).clamp(min=0)], torch.ones_like(table[at]))
        return 1 - table[at] / before

    @property
    def prediction_type(self) -> str:
        """What the model predicts, as diffusers names it."""
        return str(self._kind)

    def angle(self, t: Tensor | float) -> float:
        """The noise angle at a timestep, atan(sigma / alpha): latents of unit variance turn by
        dx / dphi = v along it, whatever is predicted."""
        alpha, sigma = self.at(t)
        return float(torch.atan2(sigma, alpha))

    def clean(self, latents: Tensor, prediction: Tensor, t: Tensor | float) -> Tensor:
        """x0 of a prediction that was made of these latents, all of one shape."""
        alpha, sigma = (level.to(latents) for level in self.at(t))
        if self._kind == "epsilon":
            return (latents - sigma * prediction) / alpha
        return alpha * latents - sigma * prediction if self._kind == "v_prediction" else prediction

    def prediction(self, latents: Tensor, clean: Tensor, t: Tensor | float) -> Tensor:
        """The prediction of these latents that stands for x0."""
        return self.stated_as(self.prediction_type, latents, clean, t)

    def stated_as(self, kind: str, latents: Tensor, clean: Tensor, t: Tensor | float) -> Tensor:
        """What a model of a type would have to predict of these latents so that it stands for x0."""
        alpha, sigma = (level.to(latents) for level in self.at(t))
        if kind == "epsilon":
            return (latents - alpha * clean) / sigma
        return (alpha * latents - clean) / sigma if kind == "v_prediction" else clean


def known_levels(scheduler: Any) -> NoiseLevels | None:
    """The noise levels of a scheduler; None where it has none by timestep."""
    try:
        return NoiseLevels(scheduler)
    except CacheStateError:
        return None


def stability(past: Sequence[tuple[Tensor, Tensor | float]], noise: NoiseLevels) -> Tensor:
    """The mean of (x - x^) (f0 - 2 f1 + f2) for latents x of the last four steps with their timesteps, the
    newest last: f = dx/dt at the three before it, and x^ what they predict, as SADA released it.

    The release reads f off the guided prediction. Here it is what a first-order step between the latents
    took, so that guidance and solver need not be known.
    """
    changes = []
    for (x, t), (following, t_next) in pairwise(past):
        (alpha, sigma), (alpha_next, sigma_next) = noise.at(t), noise.at(t_next)
        turned = (alpha * alpha_next + sigma * sigma_next).to(x) * x
        velocity = (following - turned) / (sigma_next * alpha - alpha_next * sigma).to(x)
        changes.append(0.5 * noise.beta(t).to(x) * (alpha / sigma).to(x) * velocity)
    oldest, middle, newest = changes
    foretold = past[-2][0] - (0.625 * newest + 0.75 * middle - 0.375 * oldest)
    return ((past[-1][0] - foretold) * (newest - 2 * middle + oldest)).mean()
