"""The denoising loop, and UNet, ControlNet and guidance over windows of frames as the one callable
that it steps.

A clip of one window is computed exactly as AnimateDiffControlNetPipeline or
StableVideoDiffusionPipeline computes it, so that without a cache the result is the same to the bit; the
conditioning knows which of them it is. Listeners are called before the models run; the loop does not
know what is cached.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from einops import rearrange
from torch import Tensor

from ..errors import CacheStateError
from ..plan.memory.windows import Window, Windows
from .conditioning import Conditioning

_RESIDUALS = ("down_block_additional_residuals", "mid_block_additional_residual")


class Listener(Protocol):
    """Is called before the models run, with the step and the window of frames: the engine, a recorder."""

    def only_windows(self, windows: Collection[int], following: int) -> object:
        """A step begins: the windows it runs, and the first window of the step after it."""

    def at(self, step_index: int, window: int = 0) -> object:
        """The models run next, on this window of the step."""


class SharedWindows(Protocol):
    """The windows of a clip over several processes: which are this one's, and what all of them predict."""

    def windows(self, shifted: bool) -> tuple[Window, ...]:
        """This process's windows of a step."""

    def blended(self, ours: Tensor, shifted: bool) -> Tensor:
        """The blended prediction of all windows, of what this process's windows add to it."""


@dataclass
class WindowsDone:
    """A step of several windows that is under way: how many are done, their predictions blended, and the
    last one's ControlNet residuals, of which the next one takes the frames that they share."""

    blended: Tensor
    residuals: dict[str, Any] | None = None
    done: int = 0


class ControlledUNet:
    """`unet` steered by `controlnet`: latents (b c f h w), or (b f c h w) as the guidance has them, at t give
    the guided prediction, same shape.

    Without a `controlnet` (None) the UNet runs alone; a UNet without residual inputs must have been given
    them (cache/residual_inputs.py). With `windows` a long clip goes through the UNet
    window by window, the ControlNet once per frame, and predictions are blended; only one window's
    residuals are there at a time. `moves` says per step whether the shifted windows are taken.
    `listeners` are called before the models run on a window, `on_window(step_index, windows done)` after
    each but the last one of a step. `under_way`, where it is set, is what the coming step goes on from.
    `share`, where it is given, has the other windows computed in other processes.
    """

    def __init__(
        self, unet: Any, controlnet: Any, guidance: Conditioning, num_inference_steps: int,
        *, windows: Windows | None = None, moves: Sequence[bool] = (),
        listeners: Sequence[Listener] = (),
        on_window: Callable[[int, WindowsDone], object] | None = None,
        share: SharedWindows | None = None,
    ) -> None:  # fmt: skip
        self.unet, self.controlnet, self.guidance = unet, controlnet, guidance
        self.num_inference_steps, self.windows, self.moves = num_inference_steps, windows, moves
        self.listeners, self.on_window, self.share = listeners, on_window, share
        self.under_way: WindowsDone | None = None

    def __call__(self, latents: Tensor, t: Tensor, step_index: int) -> Tensor:
        axis = self.guidance.frames_axis
        clip = self.windows or Windows(latents.shape[axis], latents.shape[axis])
        windows = self._windows(clip, step_index)
        following = self._windows(clip, step_index + 1)[0].window_id
        for listener in self.listeners:
            listener.only_windows({window.window_id for window in windows}, following)
        if len(clip.plain) == 1:
            return self._window(windows[0], latents, t, step_index, None)[0]
        weights = clip.weights_by_id(self._moved(step_index))
        step, self.under_way = self.under_way or WindowsDone(torch.zeros_like(latents)), None
        for window in windows[step.done :]:
            part = self._of(latents, window.frames)
            noise_pred, step.residuals = self._window(window, part, t, step_index, step.residuals)
            weight = torch.tensor(
                weights[window.window_id], device=latents.device, dtype=latents.dtype
            )
            behind = (1,) * (latents.ndim - axis - 1)
            self._of(step.blended, window.frames).add_(noise_pred * weight.view(-1, *behind))
            step.done += 1
            if self.on_window is not None and step.done < len(windows):
                self.on_window(step_index, step)
        if self.share is not None:
            return self.share.blended(step.blended, self._moved(step_index))
        return step.blended

    def _windows(self, clip: Windows, step_index: int) -> tuple[Window, ...]:
        """The windows of a step that are computed here."""
        shifted = self._moved(step_index)
        return clip.at(shifted) if self.share is None else self.share.windows(shifted)

    def _moved(self, step_index: int) -> bool:
        return step_index < len(self.moves) and self.moves[step_index]

    def _of(self, latents: Tensor, frames: slice) -> Tensor:
        """The latents of these frames."""
        return latents.narrow(self.guidance.frames_axis, frames.start, frames.stop - frames.start)

    def _window(
        self, window: Window, latents: Tensor, t: Tensor, step_index: int, before: Any
    ) -> tuple[Tensor, Any]:
        """The guided prediction of a window's latents, and its residuals for the next one."""
        guidance = self.guidance
        for listener in self.listeners:
            listener.at(step_index, window.window_id)
        sample = guidance.sample(latents, window.frames)
        residuals = self._residuals(window, sample, t, step_index, before)
        noise_pred: Tensor = self.unet(
            sample, t, **guidance.unet_inputs(window.frames), **residuals
        ).sample
        return guidance.guided(noise_pred, window.frames), residuals

    def _residuals(
        self, window: Window, sample: Tensor, t: Tensor, step_index: int, before: Any
    ) -> dict[str, Any]:
        """The ControlNet's residuals for what the UNet reads of a window, by the UNet's names of them:
        those of the frames that it shares with the window before, and fresh ones for the rest. None
        without a ControlNet."""
        if self.controlnet is None:
            return {}
        fresh = self._of(sample, slice(window.length - window.fresh, window.length))
        given = self.guidance.controlnet_inputs(fresh, window.fresh_frames)
        scale = list(self.guidance.scale_at(step_index, self.num_inference_steps))
        several = len(scale) > 1  # diffusers takes lists for several ControlNets only
        down, mid = self.controlnet(
            given.pop("sample"), t, **given,
            conditioning_scale=scale if several else scale[0], return_dict=False,
        )  # fmt: skip
        if before is not None and window.fresh < window.length:
            shared = window.length - window.fresh
            old_down, old_mid = (before[name] for name in _RESIDUALS)
            down = tuple(_joined(a, b, shared) for a, b in zip(old_down, down, strict=True))
            mid = _joined(old_mid, mid, shared)
        return dict(zip(_RESIDUALS, (down, mid), strict=True))


def _joined(before: Tensor, fresh: Tensor, shared: int) -> Tensor:
    """A residual of a window: the last `shared` frames of the one before, then the fresh ones, per
    guidance branch. Stand-ins of residuals that nobody reads stay what they are."""
    if _is_stand_in(fresh):
        return fresh
    if _is_stand_in(before):
        raise CacheStateError(
            "a window computes residuals that the window before it, with which it shares frames, left out; "
            "windows whose steps are decided one by one must be apart (Windows.under)"
        )
    branches = _branches(before, fresh, shared)
    old, new = (rearrange(rows, "(b f) ... -> b f ...", b=branches) for rows in (before, fresh))
    joined: Tensor = rearrange(torch.cat([old[:, -shared:], new], 1), "b f ... -> (b f) ...")
    return joined


def _is_stand_in(residual: Tensor) -> bool:
    """Whether a residual is one that nobody reads."""
    return residual.ndim == 0 or len(residual) == 0


def _branches(before: Tensor, fresh: Tensor, shared: int) -> int:
    """How many guidance branches residuals have: after a gate there is one, however many came in."""
    # Windows have one length l: before has b·l rows, fresh b·(l - shared).
    return (len(before) - len(fresh)) // shared


def denoise(
    predict: Callable[[Tensor, Tensor, int], Tensor],
    scheduler: Any,
    latents: Tensor,
    timesteps: Tensor,
    *,
    on_step: Callable[[int, Tensor], None] | None = None,
    first: int = 0,
    **step_options: Any,
) -> Tensor:
    """Takes latents from noise to clean through `timesteps`; `predict(latents, t, step_index)` gives the
    guided prediction, `on_step` sees every step. `first` is the step to begin with, of latents and a
    scheduler that are there already.

    Neither the noise nor a step's prediction is held on to: in a long clip each is as large as the latents.
    """
    with torch.no_grad():  # as a decorator it would hold the noise for the whole run
        for step_index, t in enumerate(timesteps[first:], first):
            latents = scheduler.step(
                predict(scheduler.scale_model_input(latents, t), t, step_index), t, latents,
                **step_options,
            ).prev_sample  # fmt: skip
            if on_step is not None:
                on_step(step_index, latents)
    return latents
