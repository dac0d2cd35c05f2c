"""The denoising loop, and UNet, ControlNet and guidance as the one callable that it steps.

The loop does exactly what AnimateDiffControlNetPipeline does, so that without a cache the result is
the same to the bit; it tells the engine the position before each step. It never learns what is cached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

StepCallback = Callable[[int, int, Tensor], "bool | None"]


class Position(Protocol):
    """Whoever must know where the run is: the engine, the control."""

    def at(self, step_index: int, window: int = 0) -> object:
        """Called before the models of a step run."""


@dataclass(frozen=True)
class Guidance:
    """What steers a clip: prompt_embeds (2f n d), uncond first, or (f n d) without guidance;
    controlnet_cond (2f 3 H W) or (f 3 H W) in 0..1; the two scales; the share of the run at which
    the control begins and at which it ends."""

    prompt_embeds: Tensor
    controlnet_cond: Tensor
    guidance_scale: float
    conditioning_scale: float
    control_guidance_start: float = 0.0
    control_guidance_end: float = 1.0

    def scale_at(self, step_index: int, num_inference_steps: int) -> float:
        """The control's scale at a step, 0 outside its window; the stock pipeline's own rule."""
        before = step_index / num_inference_steps < self.control_guidance_start
        after = (step_index + 1) / num_inference_steps > self.control_guidance_end
        return 0.0 if before or after else self.conditioning_scale

    @property
    def classifier_free(self) -> bool:
        """Whether a prompt-free branch is computed (Ho & Salimans 2207.12598)."""
        return self.guidance_scale > 1


class ControlledUNet:
    """`unet` steered by `controlnet`: latents (b c f h w) at t give the guided prediction, same shape.

    Without a `controlnet` (None) the UNet runs alone.
    """

    def __init__(
        self, unet: Any, controlnet: Any, guidance: Guidance, num_inference_steps: int
    ) -> None:
        self.unet, self.controlnet, self.guidance = unet, controlnet, guidance
        self.num_inference_steps = num_inference_steps
        self._scale = guidance.conditioning_scale

    def at(self, step_index: int, window: int = 0) -> None:
        """Tells the position: the control may have a window."""
        self._scale = self.guidance.scale_at(step_index, self.num_inference_steps)

    def __call__(self, latents: Tensor, t: Tensor) -> Tensor:
        guidance = self.guidance
        both = torch.cat([latents] * 2) if guidance.classifier_free else latents
        down, mid = self._residuals(both, t)
        noise_pred: Tensor = self.unet(
            both,
            t,
            encoder_hidden_states=guidance.prompt_embeds,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        ).sample
        if not guidance.classifier_free:
            return noise_pred
        uncond, cond = noise_pred.chunk(2)
        return uncond + guidance.guidance_scale * (cond - uncond)

    def _residuals(self, latents: Tensor, t: Tensor) -> tuple[Any, Any]:
        """The ControlNet's residuals for latents (b c f h w); none without a ControlNet."""
        if self.controlnet is None:
            return None, None
        residuals: tuple[Any, Any] = self.controlnet(
            latents.transpose(1, 2).flatten(0, 1),
            t,
            encoder_hidden_states=self.guidance.prompt_embeds,
            controlnet_cond=self.guidance.controlnet_cond,
            conditioning_scale=self._scale,
            guess_mode=False,
            return_dict=False,
        )
        return residuals


@torch.no_grad()
def denoise(
    predict: Callable[[Tensor, Tensor], Tensor],
    scheduler: Any,
    latents: Tensor,
    timesteps: Tensor,
    *,
    positions: Sequence[Position] = (),
    on_step: Callable[[int, Tensor], None] | None = None,
    **step_options: Any,
) -> Tensor:
    """Takes latents (b c f h w) from noise to clean through `timesteps`; `on_step` sees every step."""
    for step_index, t in enumerate(timesteps):
        for position in positions:
            position.at(step_index=step_index)
        noise_pred = predict(scheduler.scale_model_input(latents, t), t)
        latents = scheduler.step(noise_pred, t, latents, **step_options).prev_sample
        if on_step is not None:
            on_step(step_index, latents)
    return latents
