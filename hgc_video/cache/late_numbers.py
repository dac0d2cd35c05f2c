"""Numbers that a device has computed, on their way to the host: nobody waits for them until they are read."""

from __future__ import annotations

import torch
from torch import Tensor


class LateNumbers:
    """Scalars (n) of a device. Their copy is queued behind what computes them and lands in pinned memory; who
    reads them a step later finds them there, so that the host need not stop for the device."""

    def __init__(self, numbers: Tensor) -> None:
        self._there = numbers.to(torch.float32)
        self._arrived: torch.cuda.Event | None = None
        if numbers.device.type == "cuda":
            pinned = torch.empty(numbers.shape, dtype=torch.float32, pin_memory=True)
            pinned.copy_(self._there, non_blocking=True)
            self._there, self._arrived = pinned, torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(numbers.device))

    def read(self) -> list[float]:
        """The numbers; waits until they have arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return [float(number) for number in self._there.tolist()]


def largest(tensor: Tensor) -> Tensor:
    """The largest magnitude in a tensor, as a scalar of its device; NaN where one is in it. No copy of the
    tensor is made."""
    least, most = tensor.aminmax()
    return torch.maximum(-least, most)
