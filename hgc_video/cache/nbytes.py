"""Counts the bytes of tensors that are held, each storage once, as they come and go."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


class Count:
    """`now` and `peak` of bytes that come and go."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def add(self, nbytes: int) -> None:
        """They came."""
        self.now += nbytes
        self.peak = max(self.peak, self.now)

    def remove(self, nbytes: int) -> None:
        """They went."""
        self.now -= nbytes


class Tally(Count):
    """Bytes of the storages of all tensors held; two tensors that share a storage count it once."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[int, int] = {}

    def hold(self, tensor: Tensor) -> None:
        """A tensor is held now."""
        storage = tensor.untyped_storage()
        holders = self._held.get(storage._cdata, 0)
        if not holders:
            self.add(storage.nbytes())
        self._held[storage._cdata] = holders + 1

    def let_go(self, tensor: Tensor) -> None:
        """A tensor that was held will be freed."""
        storage = tensor.untyped_storage()
        self._held[storage._cdata] -= 1
        if not self._held[storage._cdata]:
            del self._held[storage._cdata]
            self.remove(storage.nbytes())


def storage_nbytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the tensors' storages, each counted once."""
    tally = Tally()
    for tensor in tensors:
        tally.hold(tensor)
    return tally.now
