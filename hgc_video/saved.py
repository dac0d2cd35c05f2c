"""What a cache saved in a run of somebody's own loop, and what it did at every step."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from .plan.explain import StepSummary
from .plan.schedule import Schedule
from .savings import Savings


@dataclass(frozen=True, kw_only=True)
class CacheReport(Savings):
    """The last run under `enable_cache`: MACs by part that were executed and that the same run without a
    cache executes (VAE and text encoder left out), bytes that the cache held at most, the schedules that
    were carried out (one, and one more for each time the run was planned anew), and a row of figures for
    every step."""

    pipeline: str
    preset: str
    num_inference_steps: int
    num_frames: int
    height: int
    width: int
    cache_nbytes: int
    schedules: tuple[Schedule, ...]
    steps: tuple[StepSummary, ...]

    def to_json(self) -> str:
        """All fields, and the share saved."""
        schedules = [schedule.to_dict() for schedule in self.schedules]
        told = {"macs_saved": self.macs_saved, **asdict(self), "schedules": schedules}
        return json.dumps(told, indent=2)

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.pipeline}, {self.preset}: {self.num_inference_steps} steps, "
                f"{self.num_frames} frames of {self.width}x{self.height} latents",
                f"MACs      {self.macs / 1e12:.3g} of {self.macs_baseline / 1e12:.3g} T: "
                f"{100 * self.macs_saved:.1f} % saved",
                f"cache     {self.cache_nbytes / 2**20:.0f} MiB at most",
                "steps",
                *(f"  {line}" for line in self.steps),
            ]
        )
