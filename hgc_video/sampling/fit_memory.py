"""Chooses the memory plan of a run that fits; composes the planner with what predicts a peak."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from functools import partial
from typing import Any

from ..errors import InputError
from ..measure.device_speed import rates_of
from ..measure.peak_memory import free_host_memory
from ..models.loaded_configurations import configurations_of
from ..plan.memory.budget import MemoryPlan, Peak, choose_memory_plan, parse_nbytes
from ..plan.presets import Preset
from .kept_numbers import KeptNumbers
from .predict_peak import PeakModel, RunScale, Trials
from .stock_pipeline import adapter_of
from .trial_step import TrialRuns

_SHARE = 0.9  # of the free memory, where no budget is given: others use it too


def memory_budget(memory: str | int | None, device: str) -> int:
    """Bytes that a run may take: as told, or what is free on the device (host memory where the device has
    none of its own) less a margin."""
    if memory is not None:
        return parse_nbytes(memory)
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0] * _SHARE)
    return int(free_host_memory() * _SHARE)


def _host_budget(device: str) -> int:
    """Bytes that idle windows' caches may take off the device: half of the free host memory for a GPU,
    as pinned memory comes in powers of two; free disk for the CPU."""
    if device.startswith("cuda"):
        return int(free_host_memory() * _SHARE) // 2
    return int(shutil.disk_usage(tempfile.gettempdir()).free * _SHARE)


class Fit:
    """The depths of one run of a loaded pipeline: the cheapest that fits, and smaller ones where a stage ran
    out of memory all the same.

    `max_frames` is the longest window, `context` the window's length where that is as_array.
    """

    def __init__(
        self, pipe: Any, preset: Preset, scale: RunScale, *, max_frames: int, context: int | None = None
    ) -> None:  # fmt: skip
        host, self._scale = adapter_of(pipe), scale
        self._device, self._dtype = str(pipe.unet.device), pipe.unet.dtype
        self._max_frames, self._context = max_frames, context
        self._decoded = host.decoded_at_once(scale.clip.num_frames)
        weights = (p for encoder in host.encoders for p in encoder.parameters())
        others = sum(p.numel() * p.element_size() for p in weights)
        self._predict = PeakModel(self._trials(pipe), others, scale, preset)

    def plan(self, budget: int | None, *, denoise_budget: int | None = None) -> MemoryPlan:
        """The cheapest memory plan whose predicted peak fits; InputError names the budget that would do."""
        return choose_memory_plan(
            self._predict, num_frames=self._scale.clip.num_frames, max_frames=self._max_frames,
            num_positions=self._scale.clip.num_positions, rates=rates_of(self._device, self._dtype),
            budget=budget, host_budget=_host_budget(self._device), context=self._context,
            decoded=self._decoded, denoise_budget=denoise_budget,
        )  # fmt: skip

    def _trials(self, pipe: Any) -> Trials:
        """What tries steps of the models, or knows what was tried before where their configurations say all
        that it depends on."""
        parts = (pipe.unet, pipe.controlnet, pipe.vae)
        run = partial(TrialRuns, *parts, self._scale, self._dtype, self._device)
        models = configurations_of(*parts)
        if models is None:
            return run()
        return KeptNumbers(
            models, self._scale, dtype=str(self._dtype).removeprefix("torch."),
            dtype_nbytes=self._dtype.itemsize, device=self._device, trials=run,
        )  # fmt: skip

    def smaller_denoise(self, failed: MemoryPlan) -> MemoryPlan:
        """The next memory plan after one whose denoising loop ran out of memory: predicted to take less
        there, while decoding, which was not reached, may take what it was to take. InputError where there
        is none."""
        taken = failed.peak.denoise or self._predict.denoise(failed.context, failed.chunks)[0]
        try:
            return self.plan(failed.budget, denoise_budget=taken)
        except InputError as error:
            raise _no_smaller(failed) from error

    def smaller_decode(self, failed: MemoryPlan) -> MemoryPlan:
        """The same memory plan with half as many frames decoded at once, after decoding ran out of memory:
        the latents are made and stay as they are; InputError where it was a single frame."""
        if failed.chunks.decode == 1:
            raise _no_smaller(failed)
        frames = min(failed.chunks.decode, self._scale.clip.num_frames) // 2 or 1
        peak = Peak(failed.peak.denoise, self._predict.decode(frames), failed.peak.spilled)
        return replace(failed, chunks=replace(failed.chunks, decode=frames), peak=peak)


def _no_smaller(failed: MemoryPlan) -> InputError:
    return InputError(
        f"memory ran out with {failed}, and there is no smaller memory plan; make fewer or smaller frames, "
        "or free memory"
    )
