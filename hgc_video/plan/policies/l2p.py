"""L2P (2604.26365, CVPR 2026; Aredstone/L2P-Cache): a matrix trained to give every step's output from all
outputs before it; of a run that skips steps, its own forecasts are among these.

Its training sees only inner products of the outputs, which `hgc-video calibrate` measures on the
embedded or any other model: 201 iterations of Adam, from the identity, as released.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from ...errors import PlanError
from ..calibration import load_products
from .whole_steps import Rule, WholeSteps, evenly, total


class L2P(WholeSteps):
    """Whole steps by a trained linear predictor of the next output."""

    spelling: ClassVar[str] = "l2p"
    source: ClassVar[str] = "2604.26365"

    calibration: str = Field(min_length=1, description="what hgc-video calibrate wrote")
    interval: int = Field(7, ge=1, description="every so many steps is computed")
    warm_up: int = Field(3, ge=1, description="the first steps, all computed")
    iterations: int = Field(201, ge=0, le=100_000, description="of the training")
    rate: float = Field(0.01, gt=0, description="its learning rate")

    def key_steps(self, num_inference_steps: int) -> list[int]:
        """The steps that are computed."""
        return evenly(num_inference_steps, self.warm_up, self.interval)

    def rule(self, keys: Sequence[int], index: int, num_inference_steps: int) -> Rule:
        """The row of the matrix for this step, with forecasts written as what they were made of."""
        if len(self.matrix) != num_inference_steps:
            raise PlanError(
                f"l2p: the calibration was made for {len(self.matrix)} steps and the run has "
                f"{num_inference_steps}; make one for that many with hgc-video calibrate"
            )
        made: list[Rule] = []
        for i in range(index + 1):
            known = i in keys
            made.append({i: 1.0} if known else total(*zip(self.matrix[i - 1], made, strict=False)))
        return made[index]

    @cached_property
    def matrix(self) -> list[list[float]]:
        """The trained matrix, made when it is first needed."""
        return trained(load_products(Path(self.calibration)), self.iterations, self.rate)


def trained(products: Sequence[Sequence[float]], iterations: int, rate: float) -> list[list[float]]:
    """The lower triangular matrix W that makes the outputs x of the steps give the next ones, W x, in the
    mean square, of the outputs' mean products; by Adam from the identity. Its rows do not depend on each
    other; nothing comes after the last step, whose row stays."""
    count = len(products)
    rows = [_trained_row(products, t, iterations, rate, 2 / (count - 1)) for t in range(count - 1)]
    return [*rows, [0.0] * (count - 1) + [1.0]]


def _trained_row(
    products: Sequence[Sequence[float]], last: int, iterations: int, rate: float, scale: float
) -> list[float]:
    """The weights of the outputs of steps 0 to `last` in the one after them."""
    known, wanted = [row[: last + 1] for row in products[: last + 1]], products[last + 1]
    row = [0.0] * last + [1.0]
    mean, square = [0.0] * len(row), [0.0] * len(row)
    for n in range(1, iterations + 1):
        slopes = [
            scale * (sum(w * g for w, g in zip(row, column, strict=True)) - wanted[j])
            for j, column in enumerate(known)  # as many rows as columns: they are symmetric
        ]
        for j, slope in enumerate(slopes):
            mean[j] = 0.9 * mean[j] + 0.1 * slope
            square[j] = 0.999 * square[j] + 0.001 * slope**2
            root = (square[j] / (1 - 0.999**n)) ** 0.5
            row[j] -= rate * mean[j] / (1 - 0.9**n) / (root + 1e-8)
    return row + [0.0] * (len(products) - len(row))
