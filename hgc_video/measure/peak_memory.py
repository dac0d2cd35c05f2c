"""The memory peak of a piece of work: CUDA's own counter, or the process's resident set elsewhere; and
what host memory is free."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil
import torch

_SAMPLE_S = 0.02


def free_host_memory() -> int:
    """Bytes of host memory that can be had without swapping."""
    return int(psutil.virtual_memory().available)


class PeakMemory:
    """`with PeakMemory(device) as memory: ...; memory.nbytes` — the peak inside, weights included; of
    several such blocks the highest.

    Without CUDA the resident set is sampled, so a peak shorter than 20 ms can be missed.
    """

    def __init__(self, device: str) -> None:
        self.device, self.nbytes = device, 0
        self._stop = threading.Event()

    def __enter__(self) -> PeakMemory:
        if self.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._stop.clear()
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.device.startswith("cuda"):
            self.nbytes = max(self.nbytes, int(torch.cuda.max_memory_allocated(self.device)))
        else:
            self._stop.set()
            self._thread.join()

    def _sample(self) -> None:
        process, stopped = psutil.Process(), False
        while not stopped:
            self.nbytes = max(self.nbytes, int(process.memory_info().rss))
            stopped = self._stop.wait(_SAMPLE_S)
