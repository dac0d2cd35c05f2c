"""What processes that make one clip together exchange: predictions once a step, latents at the end.

Over torch.distributed: NCCL between GPUs, gloo otherwise.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from ..errors import HGCVideoError, InputError
from ..plan.devices import DeviceSplit
from ..plan.memory.windows import Window

_LOOK_S = 0.05  # between two looks at the other processes, while one is waited for
# Whoever waits looks at the others; a step of theirs may take any time.
_LONGEST = timedelta(days=7)
_BEGIN = timedelta(minutes=2)

_Message = tuple[int, Tensor]  # to or from a process


class Lost(HGCVideoError):
    """Another process that makes the same clip does not answer."""


def open_store(port: int = 0, *, leads: bool = True) -> Any:
    """Where the processes find each other, on this machine alone: of the first one, which `leads`, at a
    free port."""
    return dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", port, is_master=leads, timeout=_BEGIN, wait_for_workers=False
    )


class ProcessGroup:
    """Process `rank` of `size`, joined with the others. `look` raises where one of them has failed."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self.nbytes = 0  # that were sent
        self.seconds = 0.0  # that were spent in `swap`, waiting for the other processes too

    def swap(self, sent: Sequence[_Message], received: Sequence[_Message]) -> None:
        """Sends tensors and fills the received ones, all at once; returns when all are there."""
        began = time.perf_counter()
        ops = [dist.P2POp(dist.isend, tensor, rank) for rank, tensor in sent]
        ops += [dist.P2POp(dist.irecv, tensor, rank) for rank, tensor in received]
        if ops:
            _patiently(partial(_run, ops), self._look)
        self.nbytes += sum(tensor.nbytes for _, tensor in sent)
        self.seconds += time.perf_counter() - began


def _patiently(work: Callable[[], None], look: Callable[[], None]) -> None:
    """Runs `work` in a thread, so that Ctrl-C and others' errors are seen meanwhile; Lost where it fails."""
    done, failed = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)
        finally:
            done.set()

    threading.Thread(target=run, daemon=True).start()
    while not done.wait(_LOOK_S):
        look()
    if failed:
        raise Lost(f"a process of this clip does not answer: {failed[0]}") from failed[0]


def _run(ops: list[dist.P2POp]) -> None:
    device = ops[0].tensor.device
    if device.type == "cuda":
        torch.cuda.set_device(device)  # of this thread
    for work in dist.batch_isend_irecv(ops):
        work.wait()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def process_group(
    rank: int, size: int, store: Any, device: torch.device, look: Callable[[], None]
) -> Iterator[ProcessGroup]:
    """The group of all processes while the block lasts.

    Raises:
        InputError: this program has a default group of torch.distributed already.
    """
    if dist.is_initialized():
        raise InputError(
            "devices is not possible in a program that has begun torch.distributed itself; give devices=1"
        )
    cuda = device.type == "cuda"
    begin = partial(
        dist.init_process_group, "nccl" if cuda else "gloo", store=store, rank=rank, world_size=size,
        timeout=_LONGEST, device_id=_numbered(device) if cuda else None,
    )  # fmt: skip
    hook = sys.excepthook  # torch puts one in its place that names the process in every traceback
    try:
        _patiently(begin, look)
        yield ProcessGroup(look)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        sys.excepthook = hook


def _numbered(device: torch.device) -> torch.device:
    """The device with its number."""
    return torch.device("cuda", torch.cuda.current_device()) if device.index is None else device


class Share:
    """What one process computes of every step, and how the predictions of all are put together."""

    def __init__(
        self, split: DeviceSplit, rank: int, group: ProcessGroup, frames_axis: int
    ) -> None:
        self.split, self.rank, self.group, self._axis = split, rank, group, frames_axis

    def windows(self, shifted: bool) -> tuple[Window, ...]:
        """This process's windows of a step."""
        return self.split.of(self.rank, shifted)

    def blended(self, ours: Tensor, shifted: bool) -> Tensor:
        """The blended prediction of a step, of latents' shape, of what this process's windows add to it;
        right for the frames that this process has, 0 elsewhere."""
        split, others = self.split, self._others()
        sent = [
            (other, self._of(ours, frames).contiguous())
            for other in others
            if (frames := split.sent(self.rank, other, shifted))
        ]
        places = {
            other: frames for other in others if (frames := split.sent(other, self.rank, shifted))
        }
        received = {other: self._room(ours, frames) for other, frames in places.items()}
        self.group.swap(sent, list(received.items()))
        # Added in the order of the windows, as one process does it.
        total = torch.zeros_like(ours)
        for rank in range(split.size):
            if rank == self.rank:
                total += ours
            elif rank in received:
                self._of(total, places[rank]).add_(received[rank])
        return total

    def gathered(self, latents: Tensor) -> Tensor:
        """The clip's final latents in process 0; what this process has in the others."""
        if self.split.whole:
            return latents
        if self.rank:
            own = self._of(latents, self.split.last(self.rank)).contiguous()
            self.group.swap([(0, own)], [])
            return latents
        places = {other: self.split.last(other) for other in self._others()}
        received = {other: self._room(latents, frames) for other, frames in places.items()}
        self.group.swap([], list(received.items()))
        for other, part in received.items():
            self._of(latents, places[other]).copy_(part)
        return latents

    def _others(self) -> list[int]:
        return [rank for rank in range(self.split.size) if rank != self.rank]

    def _of(self, latents: Tensor, frames: range) -> Tensor:
        return latents.narrow(self._axis, frames.start, len(frames))

    def _room(self, like: Tensor, frames: range) -> Tensor:
        return torch.empty_like(self._of(like, frames), memory_format=torch.contiguous_format)
