"""Block Caching (2312.03209): each transformer layer's contribution is kept until the change that was
measured for it, summed over the steps since, exceeds a threshold. Resnets are always computed."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import PresetError
from ..graph import BlockGraph
from ..schedule import Schedule, StepPlan
from ..similarity import load_similarity, refresh_moments


@dataclass(frozen=True)
class BlockCaching:
    """threshold: delta of eq. 7; calibration: the file of measured changes; temporal: whether motion
    modules are kept too (the paper has none); adjust: a file of fitted scales and shifts."""

    threshold: float = 0.5
    calibration: str = ""
    temporal: bool = False
    adjust: str = ""

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        if not self.calibration:
            raise PresetError(
                "block-caching needs calibration=FILE, written by scripts/record_similarity.py"
            )
        measured = load_similarity(self.calibration)
        kinds = ("attention", "motion") if self.temporal else ("attention",)
        moments = {
            name: refresh_moments(measured.of(name, num_inference_steps), self.threshold)
            for kind in kinds
            for name in graph.names(kind, "unet")
        }
        steps = []
        for i in range(num_inference_steps):
            held = frozenset(name for name, keys in moments.items() if i not in keys)
            label = f"held {len(held)}/{len(moments)}" if held else "full"
            steps.append(StepPlan(contributions=held, branches=graph.branches, label=label))
        return Schedule("block-caching", tuple(steps), lossless=False, adjust=self.adjust)
