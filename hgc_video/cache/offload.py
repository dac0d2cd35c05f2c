"""The offload tier: where the values of idle windows wait, and how they get there and back.

For a GPU it is pinned host memory, reached by a stream of its own, so that copies run beside the
compute and nobody waits for the device. For the CPU, whose memory is host memory already, it is a
mapped temporary file, which the system may write out. Without numbers (the meta device) only shapes wait.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import CacheStateError

Wait = Callable[[], None]


class Parked(Protocol):
    """A tensor's copy in the other tier."""

    nbytes: int

    @property
    def tensor(self) -> Tensor:
        """The copy as it lies here, to be read alone."""

    def bring(self) -> tuple[Tensor, Wait | None]:
        """Begins to copy it back; the tensor, and what has the current stream wait until it has arrived."""

    def free(self) -> None:
        """Its place may be used for another one."""


class OffloadTier(Protocol):
    """Takes tensors in."""

    def park(self, tensor: Tensor) -> Parked:
        """Begins to copy a tensor here; it may be freed at once."""


def host_for(device: torch.device) -> OffloadTier:
    """The tier beside a device."""
    if device.type == "cuda":
        return PinnedHost(device)
    return ShapesHost() if device.type == "meta" else MappedHost()


def _strides(tensor: Tensor) -> tuple[int, ...]:
    """Strides of a dense copy: the layout decides the last bits of a convolution, so it is kept."""
    return torch.empty_like(tensor, device="meta").stride()


class PinnedHost:
    """Pinned host memory. A copy waits for what was queued before it, what is queued after it does not
    wait for the copy; the allocators are informed, so that neither side's memory is reused too early."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)

    def park(self, tensor: Tensor) -> Parked:
        """Begins to copy a tensor here."""
        pinned = torch.empty_strided(
            tensor.shape, _strides(tensor), dtype=tensor.dtype, pin_memory=True
        )
        self.copy(pinned, tensor)
        tensor.record_stream(self.stream)
        return _Pinned(self, pinned)

    def copy(self, target: Tensor, source: Tensor) -> torch.cuda.Event:
        """Queues a copy behind all that is queued now; the event tells when it is done."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            target.copy_(source, non_blocking=True)
            done = torch.cuda.Event()
            done.record(self.stream)
        return done


class _Pinned:
    def __init__(self, host: PinnedHost, tensor: Tensor) -> None:
        self._host, self._tensor, self.nbytes = host, tensor, tensor.nbytes

    @property
    def tensor(self) -> Tensor:
        """The copy as it lies here; waits until it has arrived."""
        self._host.stream.synchronize()
        return self._tensor

    def bring(self) -> tuple[Tensor, Wait | None]:
        """Begins to copy it back."""
        host, kept = self._host, self._tensor
        # Taken from the compute stream's memory, so that one pool serves both.
        back = torch.empty_strided(kept.shape, kept.stride(), dtype=kept.dtype, device=host.device)
        arrived = host.copy(back, kept)
        back.record_stream(host.stream)

        return back, lambda: torch.cuda.current_stream(host.device).wait_event(arrived)

    def free(self) -> None:
        """Its place may be used for another one; the allocator waits for copies under way."""
        del self._tensor


_SLAB_NBYTES = 16 * 2**20


class MappedHost:
    """A temporary file without a name, mapped in slabs. A place is used again when nothing reads it any more:
    a checkpoint may still be writing a value that was freed."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="hgc_video-")  # noqa: SIM115, it lives as long as this
        weakref.finalize(self, self._file.close)
        self._end = 0
        self._slab, self._used = memoryview(b""), 0
        self._free: dict[int, list[tuple[memoryview, int]]] = {}  # slab and offset, by bytes

    def park(self, tensor: Tensor) -> Parked:
        """Copies a tensor here."""
        nbytes = tensor.numel() * tensor.element_size()
        slab, start = self._place(nbytes)
        place = slab[start : start + nbytes]
        # The tensor's storage alone holds the place, whatever views there are of it.
        freed = weakref.finalize(place, self._free.setdefault(nbytes, []).append, (slab, start))
        freed.atexit = False
        parked = torch.frombuffer(place, dtype=tensor.dtype).as_strided(
            tensor.shape, _strides(tensor)
        )
        return _Mapped(parked.copy_(tensor))

    def _place(self, nbytes: int) -> tuple[memoryview, int]:
        """A slab and where in it so many bytes are free."""
        if self._free.get(nbytes):
            return self._free[nbytes].pop()
        if self._used + nbytes > len(self._slab):
            self._slab, self._used = self._grown(max(nbytes, _SLAB_NBYTES)), 0
        start = self._used
        self._used += -(-nbytes // 64) * 64  # vector loads like aligned places
        return self._slab, start

    def _grown(self, nbytes: int) -> memoryview:
        nbytes = -(-nbytes // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        try:
            if hasattr(
                os, "posix_fallocate"
            ):  # a full disk must be an error now, not a signal later
                os.posix_fallocate(self._file.fileno(), self._end, nbytes)
            else:
                self._file.truncate(self._end + nbytes)
            slab = mmap.mmap(self._file.fileno(), nbytes, offset=self._end)
        except OSError as error:
            raise CacheStateError(
                f"no room for idle windows' caches in {tempfile.gettempdir()} ({error}); free space "
                "there, set TMPDIR to another place, or give a larger memory"
            ) from error
        self._end += nbytes
        return memoryview(slab)


class _Mapped:
    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self.nbytes = tensor, tensor.nbytes

    @property
    def tensor(self) -> Tensor:
        """The copy as it lies here."""
        return self._tensor

    def bring(self) -> tuple[Tensor, Wait | None]:
        """Copies it back."""
        kept = self._tensor
        back = torch.empty_strided(kept.shape, kept.stride(), dtype=kept.dtype).copy_(kept)
        return back, None

    def free(self) -> None:
        """Its place may be used for another one, when nobody else reads it."""
        del self._tensor


class ShapesHost:
    """Where meta tensors wait: nothing of them is left but what makes them again."""

    def park(self, tensor: Tensor) -> Parked:
        """Notes a tensor's shape."""
        return _Shape(tensor)


class _Shape:
    def __init__(self, tensor: Tensor) -> None:
        self.nbytes = tensor.numel() * tensor.element_size()
        self._told: dict[str, Any] = {
            "size": tensor.shape, "stride": _strides(tensor), "dtype": tensor.dtype
        }  # fmt: skip

    @property
    def tensor(self) -> Tensor:
        """A tensor of its shape."""
        return self.bring()[0]

    def bring(self) -> tuple[Tensor, Wait | None]:
        """Makes it again."""
        back = torch.empty_strided(**self._told, device="meta")
        return back, None

    def free(self) -> None:
        """Nothing is held."""
