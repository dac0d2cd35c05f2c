"""Latents that are no finite numbers any more stop the run: at which step, under which policy, what to do."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import NumericalError
from .late_numbers import LateNumbers, largest


class FiniteLatents:
    """Looks at the latents of every step, at one number of them: their largest magnitude.

    On a GPU that number is copied beside the compute and read when the next step is done, so that nobody
    waits for the device; a fault is told one step late, as that of the step where it was. `told(step)` says
    in half a sentence what was done at a step.
    """

    def __init__(self, num_steps: int, told: Callable[[int], str]) -> None:
        self._num_steps, self._told = num_steps, told
        self._pending: tuple[int, torch.dtype, LateNumbers] | None = None

    def see(self, step_index: int, latents: Tensor) -> None:
        """A step was made. NumericalError where the latents of it, or on a GPU of the one before it, are not
        finite."""
        pending = step_index, latents.dtype, LateNumbers(largest(latents)[None])
        if latents.device.type == "cuda":
            self.settle()
            self._pending = pending
        else:
            self._pending = pending
            self.settle()

    def settle(self) -> None:
        """Reads what was seen last: asked before latents are kept or decoded. NumericalError as `see`."""
        if self._pending is None:
            return
        (index, dtype, numbers), self._pending = self._pending, None
        (most,) = numbers.read()
        if most - most != 0:  # of NaN and of infinity
            raise NumericalError(self._message(index, dtype, "NaN" if most != most else "infinite"))

    def _message(self, index: int, dtype: torch.dtype, what: str) -> str:
        narrow = dtype == torch.float16
        wider = (
            "give dtype bfloat16 or float32"
            if narrow
            else "check the model, its LoRAs and the scheduler"
        )
        return (
            f"the latents are {what} after step {index + 1} of {self._num_steps} ({self._told(index)}, "
            f'{str(dtype).removeprefix("torch.")}); try preset "off": where that is finite, choose a '
            f"policy that extrapolates less, else {wider}"
        )
