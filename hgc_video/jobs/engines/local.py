"""The engine of one machine: a process for each device, or several on the CPU."""

from __future__ import annotations

import multiprocessing
import platform
import signal
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ...errors import at_least
from ..task import Died, Ended, Event, Ready, Step, Task
from .base import MOST_DEATHS_IN_A_ROW
from .local_process import serve

_ENDING_S = 2.0  # for a process to end by itself
_END_S = 5.0  # for a process that was killed to be gone


class LocalEngine:
    """Processes of this machine, one in each slot. Slots are named after their devices.

    Args:
        devices: a device for each slot, as ("cuda:0", "cuda:1") or ("cpu", "cpu").
        logs: a folder for what the processes and their libraries print.
    """

    def __init__(self, devices: tuple[str, ...], logs: Path) -> None:
        self._logs = logs
        self._context = multiprocessing.get_context(
            "spawn"
        )  # a fork of a process with torch may hang
        self._devices = {_slot(at, device): device for at, device in enumerate(devices)}
        self._workers: dict[str, _Process] = {}
        self._tasks: dict[str, str] = {}  # the file that each slot's task writes
        self._deaths = dict.fromkeys(self._devices, 0)

    def start(self) -> None:
        """Starts the processes."""
        self._logs.mkdir(parents=True, exist_ok=True)
        for slot in self._devices:
            self._start(slot)

    def give(self, slot: str, task: Task) -> None:
        """Gives a task to a process that is ready."""
        self._tasks[slot] = task.part
        self._workers[slot].send(task)

    def stop(self, slot: str) -> None:
        """Asks a process to stop its task after the step it is at."""
        if slot in self._workers and slot in self._tasks:
            self._workers[slot].send(self._tasks[slot])

    def events(self, timeout_s: float) -> list[Event]:
        """What the processes told, and which are gone."""
        by_connection = {process.connection: slot for slot, process in self._workers.items()}
        found: list[Event] = []
        if not by_connection:
            return found
        for connection in wait(list(by_connection), timeout_s):
            assert isinstance(connection, Connection)
            slot = by_connection[connection]
            try:
                while connection.poll():
                    found.append(self._event(slot, connection.recv()))
            except (EOFError, OSError):
                found.append(self._died(slot))
        return found

    def is_empty(self) -> bool:
        """Whether every slot was left empty."""
        return not self._workers

    def close(self) -> None:
        """Ends the processes: those that wait at once, those at work are killed."""
        for process in self._workers.values():
            process.connection.close()
        for process in self._workers.values():
            process.kill()
        self._workers.clear()

    def _start(self, slot: str) -> None:
        here, there = self._context.Pipe()
        log = self._logs / f"{slot.replace(':', '-')}.log"
        arguments = (there, self._devices[slot], len(self._devices), str(log))
        process = self._context.Process(target=serve, args=arguments, name=slot, daemon=True)
        process.start()
        there.close()  # so that its end is seen here
        self._workers[slot] = _Process(process, here)

    def _event(self, slot: str, told: Any) -> Event:
        if told == "ready":
            return Ready(slot, f"{platform.node()}:{self._workers[slot].pid}")
        if isinstance(told, tuple):
            return Step(slot, *told)
        self._deaths[slot] = 0
        return Ended(slot, told)

    def _died(self, slot: str) -> Event:
        why = self._workers.pop(slot).kill()
        self._deaths[slot] += 1
        for_good = self._deaths[slot] >= MOST_DEATHS_IN_A_ROW
        if not for_good:
            self._start(slot)
        return Died(slot, why, for_good)


class _Process:
    """A process and the connection to it."""

    def __init__(self, process: Any, connection: Connection) -> None:
        self._process, self.connection = process, connection

    @property
    def pid(self) -> int:
        """Its number."""
        return int(self._process.pid)

    def send(self, message: Any) -> None:
        """Sends a message; to a process that is gone, nothing: its end is seen by `events`."""
        try:
            self.connection.send(message)
        except OSError:
            return

    def kill(self) -> str:
        """Ends the process and says how it ended."""
        self._process.join(_ENDING_S)  # one that is ending by itself says why
        if self._process.is_alive():
            self._process.kill()
            self._process.join(_END_S)
        self.connection.close()
        return _how(self._process.exitcode)


def local_devices(workers: int | None = None, devices: tuple[str, ...] = ()) -> tuple[str, ...]:
    """A device for each process: as told, or every GPU, each `workers` times; without a GPU the CPU.

    Raises:
        InputError: not a possible number.
    """
    if workers is not None:
        at_least("workers", workers, 1)
    if devices:
        return devices * (workers or 1)
    import torch

    from ...models.device import choose_device

    gpus = tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
    return (gpus or (choose_device(None),)) * (workers or 1)


def _slot(at: int, device: str) -> str:
    return f"{at}-{device}"


def _how(exitcode: int | None) -> str:
    if exitcode is None:
        return "its worker does not answer"
    if exitcode >= 0:
        return f"its worker ended with code {exitcode}"
    name = signal.Signals(-exitcode).name
    hint = "; perhaps memory ran out" if name == "SIGKILL" else ""
    return f"its worker was ended by {name}{hint}"
