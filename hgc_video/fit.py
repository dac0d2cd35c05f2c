"""Chooses the cut of a run that fits the memory there is; composes the planner with what predicts a peak."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from .errors import InputError
from .hosts import host_of
from .measure.rates import rates_of
from .peak import PeakModel, Scale
from .plan.memory.budget import ChunkPlan, choose_chunks, parse_nbytes
from .plan.presets import Preset

_SHARE = 0.9  # of the free memory, where no budget is told: others live there too


def memory_budget(memory: str | int | None, device: str) -> int | None:
    """Bytes that a run may take: as told, or what is free on the device (host memory on the CPU) less a
    margin; None where that cannot be found out."""
    if memory is not None:
        return parse_nbytes(memory)
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0] * _SHARE)
    return _free_host_memory()


def _free_host_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    return int(free[0] * 1024 * _SHARE) if free else None


def _host_budget(device: str) -> int | None:
    """Bytes that idle windows' caches may take beside the device: half of the free host memory for a GPU,
    as pinned memory comes in powers of two; free disk for the CPU."""
    if device.startswith("cuda"):
        free = _free_host_memory()
        return None if free is None else free // 2
    return int(shutil.disk_usage(tempfile.gettempdir()).free * _SHARE)


def fit_pipeline(
    pipe: Any, preset: Preset, scale: Scale, *, max_frames: int, budget: int | None,
    context: int | None = None, smaller_than: ChunkPlan | None = None,
) -> ChunkPlan:  # fmt: skip
    """The cheapest cut of a run of a loaded pipeline that fits; InputError names what would.

    `smaller_than` is a cut that did not fit after all: the next one is predicted to take less.
    """
    parts, host = (pipe.unet, pipe.controlnet, pipe.vae), host_of(pipe)
    weights = (p for encoder in host.encoders for p in encoder.parameters())
    others = sum(p.numel() * p.element_size() for p in weights)
    device = str(pipe.unet.device)
    predict = PeakModel(*parts, others, scale, preset, pipe.unet.dtype, device)
    if smaller_than is not None:
        budget = min(smaller_than.peak.denoise, smaller_than.peak.decode)  # whichever it was
    try:
        return choose_chunks(
            predict, num_frames=scale.num_frames, max_frames=max_frames,
            num_positions=scale.num_positions, rates=rates_of(device, pipe.unet.dtype), budget=budget,
            host_budget=_host_budget(device), context=context,
            decoded=host.decoded_at_once(scale.num_frames),
        )  # fmt: skip
    except InputError as error:
        if smaller_than is None:
            raise
        raise InputError(
            f"memory ran out with {smaller_than}, and there is no smaller cut; make fewer or smaller "
            "frames, or free memory"
        ) from error
