"""Spectrum (2603.01623, CVPR 2026; hanjq17/Spectrum): a ridge fit of Chebyshev polynomials to all computed
outputs forecasts the skipped ones; the gaps between computed steps grow.

As released the steps are scaled by 50 whatever the run's number of steps is. The release forecasts the
features before the last norm (`of=features`), its ports the prediction. stable-diffusion.cpp's settings are
w=0.4,m=3,lam=1,line=fixed,slope=0.5,flex=0.5,warm_up=4,stop=0.9,keep=6.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import ClassVar, Literal

from pydantic import Field

from ..least_squares import solve
from .whole_steps import Rule, WholeSteps, growing, total


class ChebyshevFit(WholeSteps):
    """The fields and the forecast that Spectrum and its calibrated form share."""

    w: float = Field(1.0, ge=0, le=1, description="share of the fit; the rest is the local line")
    m: int = Field(4, ge=0, le=8, description="degree of the Chebyshev polynomials")
    lam: float = Field(0.1, gt=0, description="lambda, the ridge")
    window: int = Field(2, ge=1, description="after the first steps, the first computed step's gap")
    flex: float = Field(0.75, ge=0, description="alpha, by which the gap grows")
    warm_up: int = Field(5, ge=1, description="the first steps, all computed")
    stop: float = Field(
        1.0, gt=0, le=1, description="share of the run after which all steps are computed"
    )
    span: int = Field(
        50,
        ge=0,
        description="steps that are scaled to -1..1, whatever the run has; 0 takes its own",
    )
    keep: int = Field(100, ge=1, description="how many computed steps the fit is made to")
    line: Literal["distance", "fixed"] = Field(
        "distance",
        description="the local line goes as far as the step is away, or one gap wherever it is",
    )
    slope: float = Field(1.0, description="share of the last change that the local line goes on by")

    def rule(self, keys: Sequence[int], index: int, num_inference_steps: int) -> Rule:
        """w times the fit and 1 - w times the local line."""
        fit = self._fit(keys[-self.keep :], index, self.span or num_inference_steps)
        return total((self.w, fit), (1 - self.w, self._line(keys, index)))

    def _fit(self, keys: Sequence[int], index: int, span: int) -> Rule:
        """X (X'X + lambda I)^-1 x of the polynomials X at the key steps and x at this one."""
        rows = [_chebyshev(2 * key / span - 1, self.m) for key in keys]
        columns = list(zip(*rows, strict=True))
        normal = [
            [sum(a * b for a, b in zip(one, other, strict=True)) + self.lam * (i == j)
             for j, other in enumerate(columns)]
            for i, one in enumerate(columns)
        ]  # fmt: skip
        found = solve(normal, _chebyshev(2 * index / span - 1, self.m))
        return {
            key: sum(a * b for a, b in zip(row, found, strict=True))
            for key, row in zip(keys, rows, strict=True)
        }

    def _line(self, keys: Sequence[int], index: int) -> Rule:
        if len(keys) < 2:
            return {keys[-1]: 1.0}
        older, newer = keys[-2:]
        ahead = (index - newer) / (newer - older) if self.line == "distance" else 1.0
        return {newer: 1 + self.slope * ahead, older: -self.slope * ahead}


class Spectrum(ChebyshevFit):
    """Whole steps by a fit of Chebyshev polynomials, with growing gaps."""

    spelling: ClassVar[str] = "spectrum"
    source: ClassVar[str] = "2603.01623"

    def key_steps(self, num_inference_steps: int) -> list[int]:
        """The first steps, and then one after every gap, which grows with each."""
        last = floor(self.stop * num_inference_steps)
        return growing(num_inference_steps, self.warm_up, self.window, self.flex, last)


def _chebyshev(x: float, m: int) -> list[float]:
    """The polynomials T0 to Tm at x."""
    values = [1.0, x]
    while len(values) <= m:
        values.append(2 * x * values[-1] - values[-2])
    return values[: m + 1]
