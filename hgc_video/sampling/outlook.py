"""What a run is about to take, in one line before it begins: frames, windows, seconds and memory."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

from ..media.control import ControlClip
from ..plan.memory.budget import GIB

if TYPE_CHECKING:
    from .run import Run

# Of what a large convolution reaches, a whole model does: its layers are smaller and of many kinds.
_REACHED = 0.5
_TIMED = 3  # convolutions at most; their mean tells of other work on the machine too
_TIMED_S = 0.1  # after so long no further one: timing would take longer than planning a short clip


def outlook(run: Run) -> str:
    """The line. Seconds are MACs by what this device reaches in a convolution, timed here; memory is the
    predicted peak, of runs for which it is predicted."""
    seconds = _macs_in_a_row(run) / likely_macs_per_s(str(run.device), run.pipe.unet.dtype)
    peak = run.memory_plan.peak.nbytes
    memory = f" and {peak / GIB:.1f} GiB of memory" if peak else ""
    return (
        f"{_frames(run.lead)} {_windows(run)}{_devices(run)}, {run.num_inference_steps} steps: about "
        f"{_span(seconds)}{memory}"
    )


def likely_macs_per_s(device: str, dtype: object) -> float:
    """The MACs a second that a model is likely to reach on a device, timed in a fraction of a second."""
    return _REACHED * _macs_per_s(device, dtype)


def _frames(clip: ControlClip) -> str:
    num_frames, source = clip.shape[0], clip.source
    of = f" of {source.num_frames}" if source and source.num_frames > num_frames else ""
    return f"{num_frames}{of} frames at {clip.fps:g} fps ({num_frames / clip.fps:.1f} s)"


def _windows(run: Run) -> str:
    windows, scenes = run.windows.plain, len(run.windows.cuts) + 1
    if len(windows) == 1:
        return "in one window"
    of = f" of {scenes} scenes" if scenes > 1 else ""
    return f"in {len(windows)} windows of {run.windows.length}{of}"


def _devices(run: Run) -> str:
    devices = run.planned.devices
    return "" if devices is None else f" over {devices.size} processes"


def _macs_in_a_row(run: Run) -> float:
    """MACs of denoising, of several processes those of the busiest one, and of the parts beside it."""
    denoising: float = sum(run.planned.macs_by_part.values())
    if run.planned.devices is not None:
        denoising /= run.planned.devices.speedup
    return denoising + sum(run.other_macs.values())


@lru_cache(maxsize=8)
def _macs_per_s(device: str, dtype: object) -> float:
    """What a 3x3 convolution with 128 channels reaches, in MACs a second; timed once in a process."""
    import torch

    num_frames, channels, side = 8, 128, 64
    options = {"device": device, "dtype": dtype}
    given = torch.ones(num_frames, channels, side, side, **options)  # type: ignore[call-overload]
    kernel = torch.ones(channels, channels, 3, 3, **options)  # type: ignore[call-overload]
    taken: list[float] = []
    # The first one prepares, and one more is always timed.
    while len(taken) < 2 or (len(taken) <= _TIMED and sum(taken) < _TIMED_S):
        began = time.perf_counter()
        float(
            torch.nn.functional.conv2d(given, kernel, padding=1)[0, 0, 0, 0]
        )  # waits for the device
        taken.append(time.perf_counter() - began)
    return num_frames * side**2 * channels**2 * 9 * (len(taken) - 1) / sum(taken[1:])


def _span(seconds: float) -> str:
    """Seconds below two minutes, then minutes, then hours."""
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
