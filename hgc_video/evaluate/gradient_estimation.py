"""Gradient estimation (openreview o2ND9v0CeK): Euler steps along a direction that goes beyond the last change
of the model's own, a solver that like DPM++ 2M evaluates the model once a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class GradientEstimation:
    """d' = d_before + gamma (d - d_before) in place of d = (x - x0) / sigma; gamma 1 is Euler."""

    gamma: float = 2.0

    def __call__(self, own: Any, num_inference_steps: int) -> Any:
        """The scheduler, made from a pipeline's own, which is asked for so many steps."""
        from diffusers import EulerDiscreteScheduler

        kind = _with_gamma(EulerDiscreteScheduler, self.gamma)
        return kind.from_config(own.config, timestep_spacing="linspace")


def _with_gamma(kind: Any, gamma: float) -> Any:
    """An Euler scheduler's class, of which every instance steps along the other direction."""

    class GradientEstimationScheduler(kind):  # type: ignore[misc]  # a class that is known at run time
        before: Tensor | None = None

        def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
            self.before = None
            super().set_timesteps(*args, **kwargs)

        def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **options: Any) -> Any:
            if self.step_index is None:
                self._init_step_index(timestep)
            sigma = self.sigmas[self.step_index].to(sample.device)
            velocity = self.config.prediction_type == "v_prediction"
            # v: x0 = x / r^2 - v sigma / r with r^2 = sigma^2 + 1, so that d = (x sigma / r + v) / r.
            root = (sigma**2 + 1) ** 0.5
            shift = sample * sigma / root if velocity else 0.0
            scale = root if velocity else 1.0
            direction = (shift + model_output) / scale
            before, self.before = self.before, direction
            if before is not None:
                ahead = before + gamma * (direction - before)
                model_output = (ahead * scale - shift).to(model_output.dtype)
            return super().step(model_output, timestep, sample, **options)

    return GradientEstimationScheduler
