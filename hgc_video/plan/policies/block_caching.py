"""Block Caching (2312.03209): each transformer layer's delta is kept until the change that was
measured for it, summed over the steps since, exceeds a threshold. Resnets are always computed."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from ..calibration import load_changes, refresh_steps
from ..graph import BlockGraph
from ..schedule import Schedule, StepPlan
from .base import SchedulePolicy


class BlockCaching(SchedulePolicy):
    """Transformer layers add a stored delta (out - in) until their calibrated change is too large."""

    spelling: ClassVar[str] = "block-caching"
    source: ClassVar[str] = "2312.03209"

    threshold: float = Field(0.5, ge=0, description="delta of eq. 7")
    calibration: str = Field(
        min_length=1, description="the measured changes, as hgc-video calibrate writes them"
    )
    temporal: bool = Field(False, description="store motion modules too (the paper has none)")

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        measured = load_changes(Path(self.calibration), num_inference_steps)
        kinds = ("attention", "motion") if self.temporal else ("attention",)
        moments = {
            name: refresh_steps(measured.of(name), self.threshold)
            for kind in kinds
            for name in graph.names(kind, "unet")
        }
        steps = []
        for i in range(num_inference_steps):
            held = frozenset(name for name, keys in moments.items() if i not in keys)
            label = f"held {len(held)}/{len(moments)}" if held else "full"
            why = f"block-caching: {len(held)} of {len(moments)} layers changed less than "
            why += f"{self.threshold:g} since they were computed"
            steps.append(StepPlan(deltas=held, branches=graph.branches, label=label, reason=why))
        return Schedule("block-caching", tuple(steps), lossless=False)
