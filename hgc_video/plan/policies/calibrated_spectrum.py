"""Calibrated Spectrum (ruwwww/ComfyUI-Spectrum-sdxl): Spectrum, with a share of what the last forecast before
the last computed step missed of that step's output added to every later one.

As released the gap grows at every step, skipped ones too, and the steps after 80 % of the run are computed;
with its other defaults hardly any step between is.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import ClassVar, Literal

from pydantic import Field

from .spectrum import ChebyshevFit
from .whole_steps import Rule, total


class CalibratedSpectrum(ChebyshevFit):
    """Spectrum with the last error of its forecast added back."""

    spelling: ClassVar[str] = "calibrated-spectrum"
    source: ClassVar[str] = "ruwwww/ComfyUI-Spectrum-sdxl"

    w: float = Field(0.6, ge=0, le=1, description="share of the fit; the rest is the local line")
    window: int = Field(3, ge=1, description="after the first steps, the first computed step's gap")
    stop: float = Field(
        0.8, gt=0, le=1, description="share of the run after which all steps are computed"
    )
    span: int = Field(
        0, ge=0, description="steps that are scaled to -1..1, whatever the run has; 0 takes its own"
    )
    keep: int = Field(8, ge=1, description="how many computed steps the fit is made to")
    line: Literal["distance", "fixed"] = Field(
        "fixed",
        description="the local line goes as far as the step is away, or one gap wherever it is",
    )
    strength: float = Field(0.5, ge=0, le=1, description="share of the error that is added back")
    grow: Literal["always", "computed"] = Field(
        "always", description="when the gap grows: at every step as released, or at computed ones"
    )

    def key_steps(self, num_inference_steps: int) -> list[int]:
        """The first steps, then one after every gap, and all of the end."""
        keys, gap, skipped = [], float(self.window), 0
        last = floor(self.stop * num_inference_steps)
        for i in range(num_inference_steps):
            computed = not self.warm_up <= i < last or (skipped + 1) % floor(gap) == 0
            if computed:
                keys.append(i)
            skipped = 0 if computed else skipped + 1
            if i >= self.warm_up and (computed or self.grow == "always"):
                gap += self.flex
        return keys

    def rule(self, keys: Sequence[int], index: int, num_inference_steps: int) -> Rule:
        """The forecast, and a share of the last one's error at the last computed step."""
        plain = super().rule(keys, index, num_inference_steps)
        skipped = [i for i in range(keys[-1]) if i not in keys]
        if not skipped:
            return plain
        before = [key for key in keys if key < skipped[-1]]
        forecast = super().rule(before, skipped[-1], num_inference_steps)
        error = total((1.0, {keys[-1]: 1.0}), (-1.0, forecast))
        return total((1.0, plain), (self.strength, error))
