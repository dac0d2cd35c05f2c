"""What runs in the other processes of a clip: a part of its windows, as the first process says."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

import torch

from ..errors import HGCVideoError
from ..options import GenerateOptions
from ..plan.memory.budget import MemoryPlan
from .exchange import Lost, open_store

WHY_S = 10.0  # in which a process that failed says why


@dataclass(frozen=True)
class Account:
    """What one process did: MACs by part, None where nothing counted them; bytes at its memory's peak, in
    its cache and sent to other processes."""

    macs_by_part: dict[str, int] | None
    peak_nbytes: int
    cache_nbytes: dict[str, int]
    sent_nbytes: int


class Agreement(NamedTuple):
    """What all processes begin with: the memory plan, the port where they meet, and whether the first one
    has the latents of all frames at every step."""

    memory_plan: MemoryPlan
    port: int
    whole: bool


class Part(Protocol):
    """The place of this process among those that make a clip: number `rank` of `size`."""

    rank: int
    size: int

    def agree(self, choose: Callable[[], MemoryPlan], whole: bool) -> tuple[MemoryPlan, bool, Any]:
        """The memory plan and `whole` of the first process, and the store where all meet."""

    def look(self) -> None:
        """Raises where another process has failed."""

    def why(self, lost: Lost) -> HGCVideoError:
        """Why another process does not answer, where one of them says so."""


class OtherPart:
    """One of the other processes, which does as the first one says."""

    def __init__(self, connection: Connection, rank: int, size: int) -> None:
        self._connection, self.rank, self.size = connection, rank, size
        self._heard: list[Any] = []
        self._new = threading.Condition()

    def listen(self) -> None:
        """Takes what the first process sends; ends this process when that one is gone."""
        while True:
            try:
                told = self._connection.recv()
            except (EOFError, OSError):
                os._exit(1)
            with self._new:
                self._heard.append(told)
                self._new.notify()

    def agree(self, choose: Callable[[], MemoryPlan], whole: bool) -> tuple[MemoryPlan, bool, Any]:
        """As `Part`; says that the model is loaded."""
        self.tell("ready")
        with self._new:
            self._new.wait_for(lambda: self._heard)
        agreed: Agreement = self._heard.pop(0)
        return agreed.memory_plan, agreed.whole, open_store(agreed.port, leads=False)

    def look(self) -> None:
        """As `Part`: the first process sees to all of them, and ends this one."""

    def why(self, lost: Lost) -> HGCVideoError:
        """As `Part`: the first process finds that out."""
        return lost

    def tell(self, message: Any) -> None:
        """Tells the first process."""
        self._connection.send(message)


def serve(
    make: Callable[[GenerateOptions, OtherPart], Account], connection: Connection,
    options: GenerateOptions, rank: int, threads: int,
) -> None:  # fmt: skip
    """What runs in another process: makes its part, and tells how that ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process decides
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # the first process tells what there is to tell
        os.dup2(nothing, stream)
    torch.set_num_threads(threads)
    if str(options.device).startswith("cuda"):
        torch.cuda.set_device(options.device)
    part = OtherPart(connection, rank, options.devices)
    threading.Thread(target=part.listen, daemon=True).start()
    try:
        part.tell(make(options, part))
    except Lost as error:
        time.sleep(WHY_S / 2)  # who failed first tells why
        part.tell(error)
    except Exception as error:
        part.tell(_as_told(error, rank, options.devices))
        time.sleep(WHY_S / 2)  # the others are to hear of this before this process is gone
    sys.exit(0)


def _as_told(error: Exception, rank: int, size: int) -> HGCVideoError:
    """An error of another process, in one line of a kind that every process knows."""
    first = (str(error).splitlines() or [""])[0]
    kind = type(error) if isinstance(error, HGCVideoError) else HGCVideoError
    within = "" if isinstance(error, HGCVideoError) else f"{type(error).__name__}: "
    told = kind(f"process {rank + 1} of {size}: {within}{first}")
    told.add_note("".join(traceback.format_exception(error)))
    return told
