"""When a run is kept: at the steps where least is kept, often enough, and when it is asked to stop."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from ...errors import Cancelled, HGCVideoError, InputError, StateError, warn
from ...files import as_argument
from ...plan.checkpoints import checkpoint_steps, macs_by_step, nbytes_by_step
from ...plan.memory.budget import MemoryPlan
from ...plan.run_plan import RunPlan
from ...sampling.run_state import Position
from .work_folder import WorkFolder
from .writer import Write, Writer

_LONG_S = 120.0  # a run that is predicted to take longer is kept although nobody asked
State = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class _Begun:
    """What plan.json holds: the memory plan that the run was begun with, and a checksum of its schedule."""

    memory_plan: MemoryPlan
    schedule: str


_BEGUN = TypeAdapter(_Begun)


class FolderKeeper:
    """Keeps a run's state in a work folder; satisfies sampling.run_state.Keeper.

    `begin` gives the folder, at once where `at_once`, otherwise when the run turns out to be a long one.
    `interrupted` has the run stop after the step that is under way. Checkpoints are written beside the run,
    one at a time; `writer` tells what each took, `write_s` the seconds that the run itself waited for them.
    """

    def __init__(self, begin: Callable[[], WorkFolder], every_s: float, *, at_once: bool) -> None:
        self._begin, self._every_s = begin, every_s
        self.folder = begin() if at_once else None
        self.interrupted, self._long_s = False, _LONG_S
        self.writer, self.write_s = Writer(), 0.0
        self._plan: MemoryPlan | None = None
        self._nbytes: list[int] = []
        self._macs: list[int] = []
        self._start_clock()
        self._waiting: list[tuple[int, NDArray[np.uint8]]] = []
        self._schedule = ""

    def _start_clock(self) -> None:
        """The run begins or goes on now: nothing of it was made or kept since."""
        self._began = self._last = self._step_began = time.monotonic()
        self._waited_s = self.write_s  # before it began
        self._first: float | None = None  # MACs that were made before

    def memory_plan(self, choose: Callable[[], MemoryPlan], *, again: bool = False) -> MemoryPlan:
        """The memory plan that the run was begun with; the one that is chosen now where there is none, or
        the run begins `again`."""
        told = None if again else self._told()
        if told is not None:
            return told.memory_plan
        if self.folder is not None:
            self.writer.abandon()
            self.folder.clear()
            (self.folder.path / "plan.json").unlink(missing_ok=True)
        self._plan = choose()
        return self._plan

    def planned(self, plan: RunPlan, latents_nbytes: int) -> None:
        """The run's plan and the bytes of its latents; StateError where the schedule is another one than
        the run was begun with."""
        self._nbytes, self._macs = nbytes_by_step(plan, latents_nbytes), macs_by_step(plan)
        told = [plan.plan.upper_bound().to_dict(), plan.moves, str(plan.windows)]
        self._schedule = hashlib.sha256(json.dumps(told).encode()).hexdigest()
        before = self._told()
        if before is None:
            self._write_plan()
        elif before.schedule != self._schedule:
            assert self.folder is not None
            raise StateError(
                f"the schedule of {plan.preset} changed since the run in {self.folder.path} was begun; "
                "begin it anew in another folder"
            )
        self._start_clock()

    def newest(self, device: torch.device) -> Mapping[str, Any] | None:
        """The newest state that is whole, its tensors on the device."""
        state = None if self.folder is None else self.folder.newest(device)
        self._start_clock()
        return None if state is None else dict(state)

    def offer(self, position: Position, state: State) -> None:
        """Keeps the run where it is time; Cancelled where it was interrupted."""
        self._hear(self.writer.check)
        now = time.monotonic()
        if self._first is None:
            self._first = self._made(position.place - 1 / position.windows)
        if self.folder is None and self._takes_long(position, now):
            self._begin_late()
        if self.folder is None:
            return
        if (
            self.interrupted
            or position.finished
            or (self._may_write(now) and self._due(position, now))
        ):
            self._keep(state)
        if not position.window:
            self._step_began = time.monotonic()
        if self.interrupted:
            self._stop(f"{position.step} of {position.num_steps} steps")

    def stopped(self, position: Position, state: State) -> None:
        """Keeps the run, which stops here."""
        if self.folder is not None:
            self._keep(state)
            self.wait()

    def frames(self, start: int, count: int) -> NDArray[np.uint8] | None:
        """Decoded frames that were kept."""
        return None if self.folder is None else self.folder.frames(start, count)

    def keep_frames(self, start: int, frames: NDArray[np.uint8]) -> None:
        """Keeps decoded frames, those of some seconds together; Cancelled where it was interrupted."""
        if self.folder is None:
            return
        self._hear(self.writer.check)
        self._waiting.append((start, frames))
        now = time.monotonic()
        if self.interrupted or (self._may_write(now) and now - self._last >= self._every_s):
            folder, waiting = self.folder, tuple(self._waiting)
            self._write(lambda _: sum(folder.keep_frames(*one) for one in waiting))
            self._waiting.clear()
        if self.interrupted:
            self._stop("all steps, and some frames decoded")

    def _may_write(self, now: float) -> bool:
        """Whether the writer is free, or has had so long that the run is to wait for it."""
        return not self.writer.busy or now - self._last >= 2 * self._every_s

    def _due(self, position: Position, now: float) -> bool:
        """Whether this is a place to keep the run at: the plan's next one, at the speed of so far; within a
        step, where its next window would end too late."""
        since = now - self._last
        if position.window:
            window_s = (now - self._step_began) / position.window
            return since + window_s > self._every_s
        seconds = [macs / self._macs_per_s(position, now) for macs in self._macs[position.step :]]
        nbytes = self._nbytes[position.step - 1 :]
        return checkpoint_steps(nbytes, [0.0, *seconds], self._every_s, since)[0] == 0

    def _takes_long(self, position: Position, now: float) -> bool:
        if position.finished:
            return False
        left = sum(self._macs[position.step :])
        return now - self._began + left / self._macs_per_s(position, now) > self._long_s

    def _macs_per_s(self, position: Position, now: float) -> float:
        """As measured since the run began, or goes on, in this process."""
        made = self._made(position.place) - (self._first or 0)
        waited_s = self.write_s - self._waited_s
        return max(made, 1.0) / max(now - self._began - waited_s, 1e-9)

    def _made(self, place: float) -> float:
        """MACs up to a place, in steps."""
        whole = int(place)
        return sum(self._macs[:whole]) + (place - whole) * sum(self._macs[whole : whole + 1])

    def _begin_late(self) -> None:
        """Takes the folder of a run that turned out to be long; the run goes on without where it cannot."""
        try:
            self.folder = self._begin()
            self._write_plan()
        except InputError as error:
            self._long_s = math.inf
            warn(f"this run is not kept: {error}", stacklevel=2)

    def wait(self) -> None:
        """Waits until all that was begun is written."""
        began = time.monotonic()
        self._hear(self.writer.wait)
        self.write_s += time.monotonic() - began

    def _keep(self, state: State) -> None:
        """Takes what the state is now, and has it written; warns where it cannot be told."""
        self.wait()
        self._hear(lambda: self._take(state))

    def _take(self, state: State) -> None:
        assert self.folder is not None
        folder, began = self.folder, time.monotonic()
        snapshot = folder.snapshot(state())
        self.write_s += time.monotonic() - began
        self._write(lambda going_on: folder.keep(snapshot, going_on))

    def _write(self, write: Write) -> None:
        """Begins to write, when what was begun before is written."""
        self.wait()
        self._last = time.monotonic()
        self.writer.begin(write)

    def _hear(self, ask: Callable[[], None]) -> None:
        """Asks the writer; where something cannot be kept, the run goes on all the same."""
        try:
            ask()
        except HGCVideoError as error:
            warn(f"no checkpoint is written: {error}", stacklevel=3)

    def _write_plan(self) -> None:
        if self.folder is not None and self._plan is not None:
            begun = _Begun(self._plan, self._schedule)
            self.folder.write("plan", _BEGUN.dump_python(begun, mode="json"))

    def _told(self) -> _Begun | None:
        """What the run was begun with; None where it begins now, StateError where that is damaged."""
        told = None if self.folder is None else self.folder.read("plan")
        if told is None:
            return None
        try:
            return _BEGUN.validate_python(told)
        except ValidationError as error:
            raise StateError("plan.json is damaged; begin the run anew") from error

    def _stop(self, made: str) -> None:
        assert self.folder is not None
        self.wait()
        raise Cancelled(f"stopped after {made}; {how_to_go_on(self.folder.path)}")


def how_to_go_on(folder: Path) -> str:
    """The command that goes on with a run."""
    return f"go on with: hgc-video resume {as_argument(folder)}"
