"""Whole steps by the best linear rule there is: coefficients for every skipped step, fitted in closed form to
predictions that `hgc-video calibrate` measured, with a ridge towards half of the last slope."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from ...errors import PlanError
from ..calibration import load_products
from ..linear_fit import fitted
from .whole_steps import Rule, WholeSteps, growing


class Fitted(WholeSteps):
    """Whole steps by coefficients that were fitted, with growing gaps."""

    spelling: ClassVar[str] = "fitted"
    source: ClassVar[str] = "this package"

    calibration: str = Field(min_length=1, description="what hgc-video calibrate wrote")
    terms: int = Field(3, ge=1, le=8, description="computed steps that a forecast is made of")
    ridge: float = Field(
        0.01, ge=0, description="pull towards the slope, by the last change's square"
    )
    slope: float = Field(0.5, description="share of the linear extrapolation that it is pulled to")
    window: int = Field(2, ge=1, description="after the first steps, the first computed step's gap")
    flex: float = Field(0.75, ge=0, description="by which the gap grows")
    warm_up: int = Field(5, ge=1, description="the first steps, all computed")

    def key_steps(self, num_inference_steps: int) -> list[int]:
        """The first steps, and then one after every gap, which grows with each."""
        return growing(num_inference_steps, self.warm_up, self.window, self.flex)

    def rule(self, keys: Sequence[int], index: int, num_inference_steps: int) -> Rule:
        """The fit over the last computed steps."""
        if len(self.products) != num_inference_steps:
            raise PlanError(
                f"fitted: the calibration was made for {len(self.products)} steps and the run has "
                f"{num_inference_steps}; make one for that many with hgc-video calibrate"
            )
        found = fitted(
            self.products, keys, index, terms=self.terms, ridge=self.ridge, slope=self.slope
        )
        return dict(zip(reversed(keys), found.coefficients, strict=False))

    @cached_property
    def products(self) -> tuple[tuple[float, ...], ...]:
        """The measured products, read when they are first needed."""
        return load_products(Path(self.calibration))
