"""HiCache (2508.16984; yiming-l21/CFGCache): TaylorSeer with scaled Hermite polynomials in place of powers,
which damps what is extrapolated: at order 1 and sigma 0.5 by half."""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial
from typing import ClassVar

from pydantic import Field

from .taylorseer import TaylorSeer, derivatives
from .whole_steps import Rule, total


class HiCache(TaylorSeer):
    """Whole steps by a Hermite series over the computed ones."""

    spelling: ClassVar[str] = "hicache"
    source: ClassVar[str] = "2508.16984"

    sigma: float = Field(0.5, gt=0, le=1, description="the contraction of the polynomials")

    def rule(self, keys: Sequence[int], index: int, num_inference_steps: int) -> Rule:
        """F + sum of D(i) / i! times sigma^i H_i(sigma j), j steps after the last computed one."""
        ahead = index - keys[-1]
        found = derivatives(keys, self.order, self.warm_up)
        return total(
            *(
                (self.sigma**i * _hermite(i, self.sigma * ahead) / factorial(i), d)
                for i, d in enumerate(found)
            )
        )


def _hermite(n: int, x: float) -> float:
    """The physicists' Hermite polynomial."""
    before, now = 0.0, 1.0
    for k in range(n):
        before, now = now, 2 * x * now - 2 * k * before
    return now
