"""The denoising loop, and UNet, ControlNet and guidance over windows of frames as the one callable
that it steps.

A clip of one window goes exactly the way of AnimateDiffControlNetPipeline, so that without a cache
the result is the same to the bit. Whoever must know where the run is, is told before the models run;
the loop never learns what is cached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .plan.windows import Window, Windows


class Position(Protocol):
    """Whoever must know where the run is: the engine, a recorder."""

    def at(self, step_index: int, window: int = 0) -> object:
        """Called before the models of a step run on a window."""


class ControlFrames(Protocol):
    """A control clip (f 3 H W) of which the frames asked for are given as a tensor; a tensor is one."""

    def __getitem__(self, frames: slice, /) -> Tensor: ...


@dataclass(frozen=True)
class Guidance:
    """What steers a clip: prompt_embeds (2 n d), uncond first, or (1 n d) without guidance, or with a
    text for every frame (2f n d) or (f n d);
    controlnet_cond (f 3 H W) uint8, or float in 0..1, the same for both branches, one for every
    ControlNet; the pull of the prompt and of every control; the share of the run at which the control
    begins and at which it ends; `added` is what SDXL adds to the timestep, text_embeds (2 d) and time_ids
    (2 6), uncond first, or (1 ...) without guidance."""

    prompt_embeds: Tensor
    controlnet_cond: tuple[ControlFrames, ...]
    guidance_scale: float
    conditioning_scale: tuple[float, ...]
    control_guidance_start: float = 0.0
    control_guidance_end: float = 1.0
    added: Mapping[str, Tensor] | None = None

    def scale_at(self, step_index: int, num_inference_steps: int) -> tuple[float, ...]:
        """The controls' scales at a step, 0 outside their window."""
        window = (self.control_guidance_start, self.control_guidance_end)
        inside = in_control_window(step_index, num_inference_steps, *window)
        return self.conditioning_scale if inside else (0.0,) * len(self.conditioning_scale)

    @property
    def branches(self) -> int:
        """2 where a prompt-free branch is computed (Ho & Salimans 2207.12598), else 1."""
        return 2 if self.guidance_scale > 1 else 1

    def text(self, frames: slice) -> Tensor:
        """prompt_embeds (branches·f n d) of these frames; only they are ever repeated."""
        rows: Tensor = self.prompt_embeds.unflatten(0, (self.branches, -1))
        count = frames.stop - frames.start
        rows = rows.expand(-1, count, -1, -1) if rows.shape[1] == 1 else rows[:, frames]
        return rows.flatten(0, 1)

    def added_cond(self, num_frames: int = 1) -> dict[str, Any]:
        """`added_cond_kwargs` for a model, with every branch's row for each of so many frames; none where
        nothing is added."""
        if self.added is None:
            return {}
        rows = {name: row.repeat_interleave(num_frames, 0) for name, row in self.added.items()}
        return {"added_cond_kwargs": rows}

    def control(self, frames: slice, like: Tensor) -> list[Tensor]:
        """controlnet_cond (branches·f 3 H W) of these frames in 0..1; only they are ever converted."""
        return [self._converted(cond[frames], like) for cond in self.controlnet_cond]

    def _converted(self, cond: Tensor, like: Tensor) -> Tensor:
        if cond.dtype == torch.uint8:
            cond = (
                cond.contiguous().float() / 255
            )  # the layout decides the last bits of a convolution
        return torch.cat([cond.to(like.device, like.dtype)] * self.branches)


def in_control_window(step_index: int, num_inference_steps: int, start: float, end: float) -> bool:
    """Whether the control pulls at a step; the stock pipeline's own rule."""
    before = step_index / num_inference_steps < start
    return not before and (step_index + 1) / num_inference_steps <= end


class ControlledUNet:
    """`unet` steered by `controlnet`: latents (b c f h w) at t give the guided prediction, same shape.

    Without a `controlnet` (None) the UNet runs alone. With `windows` a long clip goes through the UNet
    window by window, the ControlNet once per frame, and predictions are blended; only one window's
    residuals are there at a time. `moves` says per step whether the shifted windows are taken.
    """

    def __init__(
        self, unet: Any, controlnet: Any, guidance: Guidance, num_inference_steps: int,
        *, windows: Windows | None = None, moves: Sequence[bool] = (), engine: Any = None,
    ) -> None:  # fmt: skip
        self.unet, self.controlnet, self.guidance = unet, controlnet, guidance
        self.num_inference_steps, self.windows, self.moves = num_inference_steps, windows, moves
        self.positions: list[Any] = [] if engine is None else [engine]
        self._step, self._scale = 0, guidance.conditioning_scale

    def at(self, step_index: int, window: int = 0) -> None:
        """Tells the step: the control may have a window in time."""
        self._step = step_index
        self._scale = self.guidance.scale_at(step_index, self.num_inference_steps)

    def __call__(self, latents: Tensor, t: Tensor) -> Tensor:
        clip = self.windows or Windows(latents.shape[2], latents.shape[2])
        windows = clip.at(self._moved(self._step))
        following = clip.at(self._moved(self._step + 1))[0].number
        for position in self.positions:
            position.only_windows({window.number for window in windows}, following)
        if len(windows) == 1:
            return self._window(windows[0], latents, t, None)[0]
        blended, residuals = torch.zeros_like(latents), None
        for window, weights in zip(windows, clip.weights(windows), strict=True):
            part = latents[:, :, window.frames]
            noise_pred, residuals = self._window(window, part, t, residuals)
            weight = torch.tensor(weights, device=latents.device, dtype=latents.dtype)
            blended[:, :, window.frames] += noise_pred * weight[:, None, None]
        return blended

    def _moved(self, step_index: int) -> bool:
        return step_index < len(self.moves) and self.moves[step_index]

    def _window(
        self, window: Window, latents: Tensor, t: Tensor, before: Any
    ) -> tuple[Tensor, Any]:
        """The guided prediction of a window (b c l h w), and its residuals for the next one."""
        guidance = self.guidance
        for position in self.positions:
            position.at(self._step, window.number)
        both = torch.cat([latents] * 2) if guidance.branches == 2 else latents
        down, mid = self._residuals(window, both, t, before)
        noise_pred: Tensor = self.unet(
            both,
            t,
            encoder_hidden_states=guidance.text(window.frames),
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            **guidance.added_cond(),
        ).sample
        if guidance.branches == 1:
            return noise_pred, (down, mid)
        uncond, cond = noise_pred.chunk(2)
        return uncond + guidance.guidance_scale * (cond - uncond), (down, mid)

    def _residuals(
        self, window: Window, latents: Tensor, t: Tensor, before: Any
    ) -> tuple[Any, Any]:
        """The ControlNet's residuals for a window's latents (b c l h w): those of the frames that it
        shares with the window before, and fresh ones for the rest. None without a ControlNet."""
        if self.controlnet is None:
            return None, None
        fresh = latents[:, :, window.length - window.fresh :]
        cond, scale = self.guidance.control(window.fresh_frames, latents), list(self._scale)
        several = len(cond) > 1  # the host takes lists for several ControlNets only
        down, mid = self.controlnet(
            fresh.transpose(1, 2).flatten(0, 1),
            t,
            encoder_hidden_states=self.guidance.text(window.fresh_frames),
            controlnet_cond=cond if several else cond[0],
            conditioning_scale=scale if several else scale[0],
            guess_mode=False,
            return_dict=False,
            **self.guidance.added_cond(window.fresh),
        )
        if before is None or window.fresh == window.length:
            return down, mid
        shared = window.length - window.fresh
        old_down, old_mid = before
        joined = tuple(_joined(a, b, shared) for a, b in zip(old_down, down, strict=True))
        return joined, _joined(old_mid, mid, shared)


def _joined(before: Tensor, fresh: Tensor, shared: int) -> Tensor:
    """A residual of a window: the last `shared` frames of the one before, then the fresh ones, per
    guidance branch. Stand-ins of residuals that nobody reads stay what they are."""
    if fresh.ndim == 0 or len(fresh) == 0 or before.ndim == 0 or len(before) == 0:
        return fresh
    branches = _branches(before, fresh, shared)
    old = before.unflatten(0, (branches, -1))[:, -shared:]
    return torch.cat([old, fresh.unflatten(0, (branches, -1))], 1).flatten(0, 1)


def _branches(before: Tensor, fresh: Tensor, shared: int) -> int:
    """How many guidance branches residuals have: after a gate there is one, however many came in."""
    # Windows have one length l: before has b·l rows, fresh b·(l - shared).
    return (len(before) - len(fresh)) // shared


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
    """Takes latents (b c f h w) from noise to clean through `timesteps`; `on_step` sees every step.

    Neither the noise nor a step's prediction is held on to: in a long clip each is as large as the latents.
    """
    with torch.no_grad():  # as a decorator it would hold the noise for the whole run
        for step_index, t in enumerate(timesteps):
            for position in positions:
                position.at(step_index=step_index)
            latents = scheduler.step(
                predict(scheduler.scale_model_input(latents, t), t), t, latents, **step_options
            ).prev_sample
            if on_step is not None:
                on_step(step_index, latents)
    return latents
