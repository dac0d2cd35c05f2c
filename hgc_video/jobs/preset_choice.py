"""The preset that fits this machine: the best one that makes the clip within some minutes, as planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import HGCVideoError
from ..forecast import forecast

CHOICES = ("balanced", "fast", "turbo")  # the best first
MOST_S = 600.0


@dataclass(frozen=True)
class PresetChoice:
    """The chosen preset, the seconds that each is predicted to take, and what that rests on."""

    preset: str
    seconds: Mapping[str, float]
    device: str
    source: str

    def __str__(self) -> str:
        if not self.seconds:
            return self.source
        each = ", ".join(f"{name} {_told(s)}" for name, s in self.seconds.items())
        return f"denoising alone, predicted on {self.device}: {each} ({self.source})"


def choose_preset(model: str, *, num_frames: int, height: int, width: int) -> PresetChoice:
    """The first of `CHOICES` that is predicted to take at most `MOST_S` seconds here, else the last one.

    The prediction is that of denoising alone: the plan's MACs over the device's rate, which is measured on a
    GPU and assumed elsewhere. A model that cannot be planned from its configuration gets the first one.
    """
    import torch

    from ..measure.device_speed import rates_of
    from ..models.device import choose_device

    device = choose_device(None)
    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    rates = rates_of(device, dtype)
    cores = torch.get_num_threads() if device == "cpu" else 1
    told: dict[str, Any] = {"num_frames": num_frames, "height": height, "width": width}
    try:
        plans = {preset: forecast(model=model, preset=preset, **told) for preset in CHOICES}
    except HGCVideoError as error:
        return PresetChoice(CHOICES[0], {}, device, f"not predicted: {error}")
    rate = rates.macs_per_s * cores
    seconds = {name: sum(plan.macs_by_part.values()) / rate for name, plan in plans.items()}
    chosen = next((name for name in CHOICES if seconds[name] <= MOST_S), CHOICES[-1])
    return PresetChoice(chosen, seconds, device, rates.source)


def _told(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
