"""Batches that threads make before they are asked for, while a GPU is at work on others."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """What `make` gives for each number, in ascending order; threads make `ahead` of them."""

    def __init__(self, make: Callable[[int], T], ahead: int) -> None:
        self._make, self._ahead = make, ahead
        self._threads = ThreadPoolExecutor(ahead) if ahead else None
        self._coming: dict[int, Future[T]] = {}

    def __call__(self, number: int) -> T:
        """The item of this number."""
        if self._threads is None:
            return self._make(number)
        for later in range(number, number + self._ahead):
            if later not in self._coming:
                self._coming[later] = self._threads.submit(self._make, later)
        return self._coming.pop(number).result()
