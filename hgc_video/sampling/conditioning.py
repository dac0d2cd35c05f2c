"""What steers a clip, as the loop asks for it: how the models' inputs are made of latents, and how the
branches' predictions are joined.

`Guidance` is for models that read a prompt, `ImageConditioning` for those that begin with an image. Neither
knows steps, windows or caches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from einops import rearrange
from torch import Tensor


class ControlFrames(Protocol):
    """A control clip (f 3 H W) of which the frames asked for are given as a tensor; a tensor is one."""

    def __getitem__(self, frames: slice, /) -> Tensor: ...


def in_control_window(step_index: int, num_inference_steps: int, start: float, end: float) -> bool:
    """Whether the control pulls at a step; the stock pipeline's own rule."""
    before = step_index / num_inference_steps < start
    return not before and (step_index + 1) / num_inference_steps <= end


class Conditioning:
    """What both have: the control clips, and two branches where an unconditional one is computed.

    `frames_axis` is where latents have their frames: 2 of (b c f h w), 1 of (b f c h w).
    """

    frames_axis: ClassVar[int]
    controlnet_cond: tuple[ControlFrames, ...]
    conditioning_scale: tuple[float, ...]
    control_guidance_start: float
    control_guidance_end: float

    @property
    def branches(self) -> int:
        """2 where a unconditional branch is computed (Ho & Salimans 2207.12598), else 1."""
        raise NotImplementedError

    def sample(self, latents: Tensor, frames: slice) -> Tensor:
        """What the UNet reads: the latents of these frames once for each branch."""
        raise NotImplementedError

    def unet_inputs(self, frames: slice) -> dict[str, Any]:
        """What else the UNet is called with for these frames."""
        raise NotImplementedError

    def controlnet_inputs(self, sample: Tensor, frames: slice) -> dict[str, Any]:
        """What the ControlNet is called with for these frames, whose `sample` the UNet would read."""
        raise NotImplementedError

    def guided(self, noise_pred: Tensor, frames: slice) -> Tensor:
        """The branches' predictions joined to one."""
        raise NotImplementedError

    def scale_at(self, step_index: int, num_inference_steps: int) -> tuple[float, ...]:
        """The controls' scales at a step, 0 outside their window."""
        window = (self.control_guidance_start, self.control_guidance_end)
        inside = in_control_window(step_index, num_inference_steps, *window)
        return self.conditioning_scale if inside else (0.0,) * len(self.conditioning_scale)

    def control(self, frames: slice, like: Tensor) -> list[Tensor]:
        """controlnet_cond (branches·f 3 H W) of these frames in 0..1; only they are ever converted."""
        return [self._converted(cond[frames], like) for cond in self.controlnet_cond]

    def _converted(self, cond: Tensor, like: Tensor) -> Tensor:
        if cond.dtype == torch.uint8:
            cond = (
                cond.contiguous().float() / 255
            )  # the layout decides the last bits of a convolution
        return torch.cat([cond.to(like.device, like.dtype)] * self.branches)


@dataclass(frozen=True)
class TextConditioning(Conditioning):
    """What steers a clip from a prompt: prompt_embeds (2 n d), uncond first, or (1 n d) without guidance,
    or with a text for every frame (2f n d) or (f n d);
    controlnet_cond (f 3 H W) uint8, or float in 0..1, the same for both branches, one for every
    ControlNet; the pull of the prompt and of every control; the share of the run at which the control
    begins and at which it ends; `added` is what SDXL adds to the timestep, text_embeds (2 d) and time_ids
    (2 6), uncond first, or (1 ...) without guidance; `image_embeds` what IP-Adapters read, one each,
    (2 1 d) or (2 1 n d), uncond first. Latents are (b c f h w)."""

    frames_axis = 2

    prompt_embeds: Tensor
    controlnet_cond: tuple[ControlFrames, ...]
    guidance_scale: float
    conditioning_scale: tuple[float, ...]
    control_guidance_start: float = 0.0
    control_guidance_end: float = 1.0
    added: Mapping[str, Tensor] | None = None
    image_embeds: tuple[Tensor, ...] = ()

    @property
    def branches(self) -> int:
        return 2 if self.guidance_scale > 1 else 1

    def sample(self, latents: Tensor, frames: slice) -> Tensor:
        return torch.cat([latents] * 2) if self.branches == 2 else latents

    def unet_inputs(self, frames: slice) -> dict[str, Any]:
        given = {"encoder_hidden_states": self.text(frames), **self.added_cond()}
        if self.image_embeds:  # the UNet's alone
            added = given.get("added_cond_kwargs", {})
            given["added_cond_kwargs"] = {**added, "image_embeds": list(self.image_embeds)}
        return given

    def controlnet_inputs(self, sample: Tensor, frames: slice) -> dict[str, Any]:
        cond = self.control(frames, sample)
        return {
            "sample": rearrange(
                sample, "b c f h w -> (b f) c h w"
            ),  # its ControlNets know no frames
            "encoder_hidden_states": self.text(frames),
            "controlnet_cond": cond if len(cond) > 1 else cond[0],
            **self.added_cond(frames.stop - frames.start),
        }

    def guided(self, noise_pred: Tensor, frames: slice) -> Tensor:
        if self.branches == 1:
            return noise_pred
        uncond, cond = noise_pred.chunk(2)
        return uncond + self.guidance_scale * (cond - uncond)

    def text(self, frames: slice) -> Tensor:
        """prompt_embeds (branches·f n d) of these frames; only they are ever repeated."""
        rows: Tensor = rearrange(self.prompt_embeds, "(b f) n d -> b f n d", b=self.branches)
        count = frames.stop - frames.start
        rows = rows.expand(-1, count, -1, -1) if rows.shape[1] == 1 else rows[:, frames]
        return rearrange(rows, "b f n d -> (b f) n d")

    def added_cond(self, num_frames: int = 1) -> dict[str, Any]:
        """`added_cond_kwargs` for a model, with every branch's row for each of so many frames; none where
        nothing is added."""
        if self.added is None:
            return {}
        rows = {name: row.repeat_interleave(num_frames, 0) for name, row in self.added.items()}
        return {"added_cond_kwargs": rows}


@dataclass(frozen=True)
class ImageConditioning(Conditioning):
    """What steers a clip that begins with an image (Stable Video Diffusion, 2311.15127): image_embeds
    (2 1 d), image_latents (2 1 c h w) and added_time_ids (2 3), uncond first, or (1 ...) without guidance;
    guidance_scale (1 f 1 1 1), one for every frame; the rest as of `Guidance`, with the control's colours
    in -1..1 for the ControlNet. Latents are (b f c h w)."""

    frames_axis = 1

    image_embeds: Tensor
    image_latents: Tensor
    added_time_ids: Tensor
    controlnet_cond: tuple[ControlFrames, ...]
    guidance_scale: Tensor
    conditioning_scale: tuple[float, ...]
    control_guidance_start: float = 0.0
    control_guidance_end: float = 1.0

    @property
    def branches(self) -> int:
        return len(self.image_embeds)

    def sample(self, latents: Tensor, frames: slice) -> Tensor:
        both = torch.cat([latents] * self.branches)
        image = self.image_latents.expand(-1, frames.stop - frames.start, -1, -1, -1)
        return torch.cat([both, image], dim=2)

    def unet_inputs(self, frames: slice) -> dict[str, Any]:
        return {
            "encoder_hidden_states": self.image_embeds,
            "added_time_ids": self.added_time_ids,
        }

    def controlnet_inputs(self, sample: Tensor, frames: slice) -> dict[str, Any]:
        (cond,) = self.control(frames, sample)
        given = {
            "sample": sample,
            "controlnet_cond": rearrange(cond, "(b f) c h w -> b f c h w", b=self.branches),
        }
        return given | self.unet_inputs(frames)

    def guided(self, noise_pred: Tensor, frames: slice) -> Tensor:
        if self.branches == 1:
            return noise_pred
        uncond, cond = noise_pred.chunk(2)
        return uncond + self.guidance_scale[:, frames] * (cond - uncond)

    def _converted(self, cond: Tensor, like: Tensor) -> Tensor:
        return 2 * super()._converted(cond, like) - 1
