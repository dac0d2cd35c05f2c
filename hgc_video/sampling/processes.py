"""The processes that make one clip together: the first one begins the others, watches them, and ends them."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from ..errors import HGCVideoError, InputError
from ..media.control import ControlClip
from ..media.scenes import shortest_scene
from ..models.device import choose_device
from ..options import GenerateOptions
from ..plan.devices import DeviceSplit
from ..plan.memory.budget import MemoryPlan
from ..plan.memory.windows import Windows
from .exchange import Lost, open_store
from .other_process import WHY_S, Account, Agreement, OtherPart, serve

_END_S = 5.0  # for a process that was killed to be gone


class FirstPart:
    """The first process, which has begun the others and hears of them. `threads` are those of this process
    while it is alone."""

    rank = 0

    def __init__(self, workers: list[_Worker], threads: int) -> None:
        self._workers, self._threads, self.size = workers, threads, len(workers) + 1

    def agree(self, choose: Callable[[], MemoryPlan], whole: bool) -> tuple[MemoryPlan, bool, Any]:
        """As `Part`; waits until the others have loaded the model."""
        memory_plan, store = choose(), open_store()
        for worker in self._workers:
            self._told(worker)
        for worker in self._workers:
            with suppress(OSError):  # one that is gone is seen by `look`
                worker.connection.send(Agreement(memory_plan, store.port, whole))
        return memory_plan, whole, store

    def look(self) -> None:
        """As `Part`."""
        for worker in self._at_work():
            if worker.connection.poll():
                worker.hear()

    def accounts(self) -> list[Account]:
        """What the other processes did, when all have ended."""
        told = [self._told(worker) for worker in self._workers]
        torch.set_num_threads(self._threads)
        return told

    def why(self, lost: Lost) -> HGCVideoError:
        """As `Part`; waits for it."""
        until = time.monotonic() + WHY_S
        try:
            while self._at_work() and (left := until - time.monotonic()) > 0:
                self._wait(left)
        except HGCVideoError as error:
            return error
        return lost

    def _told(self, worker: _Worker) -> Any:
        """The next thing that a process tells; all are watched meanwhile."""
        while not worker.told:
            self._wait(None)
        return worker.told.pop(0)

    def _wait(self, timeout_s: float | None) -> None:
        wait([worker.connection for worker in self._at_work()], timeout_s)
        self.look()

    def _at_work(self) -> list[_Worker]:
        return [worker for worker in self._workers if not worker.finished]


class _Worker:
    """A process that was begun, the connection to it, and what it told that nobody has asked for yet."""

    def __init__(self, process: Any, connection: Connection, name: str) -> None:
        self.process, self.connection, self.name = process, connection, name
        self.told: list[Any] = []
        self.finished = False

    def hear(self) -> None:
        """Takes what it tells; raises its error, or that it is gone."""
        try:
            told = self.connection.recv()
        except (EOFError, OSError):
            raise HGCVideoError(f"{self.name} {self.how()}") from None
        if isinstance(told, Exception):
            raise told
        self.finished = isinstance(told, Account)
        self.told.append(told)

    def how(self) -> str:
        """How it ended."""
        self.process.join(_END_S)
        code = self.process.exitcode
        if code is None:
            return "does not answer"
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}; perhaps memory ran out"
        return (
            f"ended with code {code}; in a script, call generate under "
            "if __name__ == '__main__', as each process reads the script anew"
        )

    def end(self) -> None:
        """Ends it at once."""
        self.connection.close()
        self.process.kill()
        self.process.join(_END_S)


def devices_of(options: GenerateOptions) -> list[str]:
    """A device for each process, the first one's first: GPUs, the one in use before the others, or the CPU
    so many times.

    Raises:
        InputError: there are fewer GPUs, or the device is a single one.
    """
    kind, size = choose_device(options.device), options.devices
    if kind == "cpu":
        return ["cpu"] * size
    if kind != "cuda":
        raise InputError(
            f'devices={size} is for GPUs and the CPU, and "{kind}" is one device; give 1'
        )
    count, now = torch.cuda.device_count(), torch.cuda.current_device()
    if size > count:
        raise InputError(f"devices={size} is not possible with {count} GPU(s); give 1 to {count}")
    return [f"cuda:{(now + rank) % count}" for rank in range(size)]


@contextmanager
def _ignoring_ctrl_c() -> Iterator[None]:
    """A process that is begun in the block ignores Ctrl-C from its first moment; the first one decides."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def check_devices(options: GenerateOptions, lead: ControlClip, context: tuple[int, int]) -> None:
    """InputError where there are fewer devices, or windows of the longest possible, than asked for."""
    devices_of(options)
    num_frames, (length, overlap) = lead.shape[0], context
    if lead.cuts:
        length = min(length, shortest_scene(lead.cuts, num_frames))
    DeviceSplit(Windows(num_frames, length, min(overlap, length - 1), lead.cuts), options.devices)


@contextmanager
def several(
    options: GenerateOptions, make: Callable[[GenerateOptions, OtherPart], Account]
) -> Iterator[FirstPart]:
    """Begins the other processes of a clip, which call `make`, a module's function, with options for their
    device; they end with the block at the latest. Cores are shared by the processes."""
    devices = devices_of(options)
    threads = torch.get_num_threads()
    each = max(1, threads // options.devices) if devices[0] == "cpu" else threads
    context = multiprocessing.get_context("spawn")  # a fork of a process with torch may hang
    workers: list[_Worker] = []
    torch.set_num_threads(each)
    try:
        for rank, device in enumerate(devices[1:], 1):
            here, there = context.Pipe()
            given = options.model_copy(update={"device": device, "out": None})
            process = context.Process(
                target=serve, args=(make, there, given, rank, each), daemon=True
            )
            with _ignoring_ctrl_c():
                process.start()
            there.close()  # so that its end is seen here
            name = f"process {rank + 1} of {options.devices} ({device})"
            workers.append(_Worker(process, here, name))
        yield FirstPart(workers, threads)
    finally:
        for worker in workers:
            worker.end()
        torch.set_num_threads(threads)
