"""Where the values of windows that are not at work lie: in the offload tier, if there are many."""

from __future__ import annotations

from collections.abc import Collection

import torch

from .prepared import PreparedSchedule
from .store import Store


class IdleWindows:
    """The windows of a step in their order, and the first one of the step after it. With `spill` the values
    of idle windows are sent away where there are more than `there` windows."""

    def __init__(self, store: Store, *, spill: bool, there: int) -> None:
        self._store, self._spill, self._there = store, spill, there
        self._order, self._following = [0], 0

    def come(self, windows: Collection[int], following: int) -> None:
        """The windows of the coming step."""
        self._order, self._following = sorted(windows), following

    @property
    def first(self) -> int:
        """The window that a step begins with."""
        return self._order[0]

    @property
    def _wait(self) -> bool:
        """Whether windows idle for long enough that their values are sent away."""
        return self._spill and len(self._order) > self._there

    def fetch(self, works: PreparedSchedule, index: int, window: int) -> None:
        """Begins to bring what this window reads, if it is not there yet, and what the next one will."""
        if not self._wait:
            return
        self._store.fetch(window, works.reads(index))
        if window != self._order[-1]:
            following = self._order[self._order.index(window) + 1]
            self._store.fetch(following, works.reads(index))
        elif index + 1 < len(works):
            self._store.fetch(self._following, works.reads(index + 1))

    def park(self, window: int, device: torch.device) -> None:
        """This window is done for this step."""
        if self._wait:
            self._store.park(window, device)
