"""ResilPhase (ECCV 2026; zqc214/ResilPhase): the polynomial through the last computed outputs, over steps
that are warped by tanh around their mean, so that the further ahead it looks, the more it is damped."""

from __future__ import annotations

from collections.abc import Sequence
from math import tanh
from typing import ClassVar

from pydantic import Field

from .whole_steps import Rule, WholeSteps, evenly, lagrange


class ResilPhase(WholeSteps):
    """Whole steps by Lagrange interpolation over warped steps, "balanced" mapping."""

    spelling: ClassVar[str] = "resilphase"
    source: ClassVar[str] = "zqc214/ResilPhase"

    interval: int = Field(6, ge=1, description="every so many steps is computed")
    order: int = Field(1, ge=1, le=4, description="of the polynomial, one less than its nodes")
    alpha: float = Field(0.55, gt=0, description="of the warp; towards 0 it is straight")
    warm_up: int = Field(3, ge=1, description="the first steps, all computed")

    def key_steps(self, num_inference_steps: int) -> list[int]:
        """The steps that are computed."""
        return evenly(num_inference_steps, self.warm_up, self.interval)

    def rule(self, keys: Sequence[int], index: int, num_inference_steps: int) -> Rule:
        """The polynomial through the last computed steps, at this one."""
        nodes = keys[-self.order - 1 :]
        mean = sum(nodes) / len(nodes)
        furthest = max(abs(node - mean) for node in nodes) or 1.0

        def warped(step: int) -> float:
            return tanh(self.alpha * (step - mean) / furthest)

        return lagrange(((node, warped(node)) for node in nodes), warped(index))
