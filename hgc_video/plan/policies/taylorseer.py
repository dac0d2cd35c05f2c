"""TaylorSeer (2503.06923; Shenyi-Z/TaylorSeer): a skipped step's output is the Taylor series of the last
computed one, with finite differences over the computed steps as its derivatives.

The release keeps the outputs of every attention and feed-forward layer; here it is the whole step's, as
in its light mode in diffusers, since layer by layer a UNet's skipped step would still run convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial
from typing import ClassVar

from pydantic import Field

from .whole_steps import Rule, WholeSteps, evenly, total


class TaylorSeer(WholeSteps):
    """Whole steps by a Taylor series over the computed ones."""

    spelling: ClassVar[str] = "taylorseer"
    source: ClassVar[str] = "2503.06923"

    interval: int = Field(3, ge=1, description="every so many steps is computed, N")
    order: int = Field(1, ge=0, le=4, description="the highest derivative; 0 holds the last output")
    warm_up: int = Field(3, ge=1, description="the first steps, all computed")

    def key_steps(self, num_inference_steps: int) -> list[int]:
        """The steps that are computed."""
        return evenly(num_inference_steps, self.warm_up, self.interval)

    def rule(self, keys: Sequence[int], index: int, num_inference_steps: int) -> Rule:
        """F + j D1 + j^2 / 2 D2 ..., j steps after the last computed one."""
        ahead = index - keys[-1]
        found = derivatives(keys, self.order, self.warm_up)
        return total(*((ahead**i / factorial(i), d) for i, d in enumerate(found)))


def derivatives(keys: Sequence[int], order: int, warm_up: int) -> list[Rule]:
    """The value and the derivatives per step at the last key step, each as a rule: D(i+1) is the change of
    D(i) since the key step before, per step. As released, they begin with the last of the first steps."""
    before: list[Rule] = []
    for n, key in enumerate(keys):
        now: list[Rule] = [{key: 1.0}]
        if n and key > warm_up - 2:
            gap = key - keys[n - 1]
            for i in range(min(order, len(before))):
                now.append(total((1 / gap, now[i]), (-1 / gap, before[i])))
        before = now
    return before
