"""Seconds by stage, as the report shows them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up wall-clock seconds by stage name: `with clock("decode"): ...`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Times one stage; also when it fails."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began

    def totals(self) -> dict[str, float]:
        """Seconds of every stage and of all since the watch was made, as `total`."""
        return {**self.seconds, "total": time.perf_counter() - self._began}
