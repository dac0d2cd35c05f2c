"""Where a run is, and everything that its further steps read: saved as plain data and tensors, and restored.

Knows nothing about files. `Keeper` is what a run offers its state to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..cache.engine import Engine
from ..cache.finite import FiniteLatents
from ..errors import Cancelled, StateError
from ..media.frames import Frame
from ..plan.memory.budget import MemoryPlan
from ..plan.run_plan import RunPlan
from .loop import ControlledUNet, WindowsDone
from .scheduler_state import SchedulerHistory


@dataclass(frozen=True)
class Position:
    """The step that comes next and how many of its windows are done; `num_steps` are all steps, and a
    `step` of so many is the end. `windows` are those of a step."""

    step: int
    num_steps: int
    window: int = 0
    windows: int = 1

    @property
    def place(self) -> float:
        """The steps that are made, with the share of the one that is under way."""
        return self.step + self.window / self.windows

    @property
    def finished(self) -> bool:
        """Whether all steps are made."""
        return self.step == self.num_steps


class Keeper(Protocol):
    """What keeps a run's state, so that it can go on after its process ended."""

    def memory_plan(self, choose: Callable[[], MemoryPlan], *, again: bool = False) -> MemoryPlan:
        """The memory plan that the run was begun with, or the one that is chosen now: where there is none,
        or the run begins `again`."""

    def planned(self, plan: RunPlan, latents_nbytes: int) -> None:
        """The run's plan and the bytes of its latents; StateError where it is another than it was begun
        with."""

    def newest(self, device: torch.device) -> Mapping[str, Any] | None:
        """The newest state that was kept, its tensors on the device; None where the run begins."""

    def offer(self, position: Position, state: Callable[[], Mapping[str, Any]]) -> None:
        """The run is here; `state()` may be kept now. Cancelled where the user wants it to stop."""

    def stopped(self, position: Position, state: Callable[[], Mapping[str, Any]]) -> None:
        """The run is to stop here, by the caller's own wish."""

    def frames(self, start: int, count: int) -> Frame | None:
        """Decoded frames (count H W 3) that were kept, from `start` on; None where they were not."""

    def keep_frames(self, start: int, frames: Frame) -> None:
        """Frames (n H W 3) were decoded, from `start` on. Cancelled as `offer`."""


class KeepNothing:
    """A keeper of a run that is not resumed."""

    def memory_plan(self, choose: Callable[[], MemoryPlan], *, again: bool = False) -> MemoryPlan:
        """The one that is chosen now."""
        return choose()

    def planned(self, plan: RunPlan, latents_nbytes: int) -> None:
        """Takes no note of it."""

    def newest(self, device: torch.device) -> None:
        """Nothing is kept."""

    def offer(self, position: Position, state: Callable[[], Mapping[str, Any]]) -> None:
        """Keeps nothing."""

    def stopped(self, position: Position, state: Callable[[], Mapping[str, Any]]) -> None:
        """Keeps nothing."""

    def frames(self, start: int, count: int) -> None:
        """Nothing is kept."""

    def keep_frames(self, start: int, frames: Frame) -> None:
        """Keeps nothing."""


class RunState:
    """The state of a run between two steps, or two windows of a step. Made when the scheduler's timesteps
    are set, and no step was made."""

    def __init__(
        self, scheduler: Any, generator: torch.Generator | None, steered: ControlledUNet,
        engine: Engine | None, noise: Tensor,
    ) -> None:  # fmt: skip
        self._history = SchedulerHistory(scheduler)
        self._generator, self._steered, self._engine = generator, steered, engine
        self.latents, self.step = noise, 0
        self._under_way: WindowsDone | None = None

    def after_step(self, step_index: int, latents: Tensor) -> Position:
        """A step was made."""
        self.latents, self.step, self._under_way = latents, step_index + 1, None
        return self._position(self.step)

    def after_window(self, step_index: int, windows: WindowsDone) -> Position:
        """A window of a step was made, not its last one."""
        self._under_way = windows
        return self._position(step_index)

    def _position(self, step: int) -> Position:
        steered, done = self._steered, self._under_way
        count = 1 if steered.windows is None else len(steered.windows.plain)
        return Position(step, steered.num_inference_steps, done.done if done else 0, count)

    def state(self) -> dict[str, Any]:
        """All of it; tensors are not copied."""
        way = self._under_way
        return {
            "step": self.step,
            "latents": self.latents,
            "scheduler": self._history.state(),
            "generator": None if self._generator is None else self._generator.get_state(),
            "engine": None if self._engine is None else self._engine.state(),
            "windows": None if way is None else [way.blended, way.residuals, way.done],
        }

    def go_on(self, keeper: Keeper) -> None:
        """The run is where its keeper has it, if that has anything."""
        kept = keeper.newest(self.latents.device)
        if kept is not None:
            self._restore(kept)

    def _restore(self, state: Mapping[str, Any]) -> None:
        """The run is where `state` was asked."""
        if (state["engine"] is None) != (self._engine is None):
            raise StateError("the checkpoint is of a run with another cache; begin the run anew")
        self.step, self.latents = state["step"], state["latents"]
        self._history.restore(state["scheduler"])
        if self._generator is not None and state["generator"] is not None:
            self._generator.set_state(state["generator"])
        if self._engine is not None:
            self._engine.restore(state["engine"], self.latents.device)
        if state["windows"] is not None:
            self._under_way = self._steered.under_way = WindowsDone(*state["windows"])


class Offers:
    """Offers the state of a run to its keeper, after each step and each window of a step; `on_step` sees
    every step before that, and may stop the run by Cancelled. `state` is set before the first one. Latents
    that are not `finite` are never kept."""

    state: RunState

    def __init__(
        self, keeper: Keeper, on_step: Callable[[int, Tensor], None], finite: FiniteLatents
    ) -> None:
        self._keeper, self._on_step, self._finite = keeper, on_step, finite

    def step(self, step_index: int, latents: Tensor) -> None:
        """A step was made; NumericalError where its latents are not finite."""
        self._finite.see(step_index, latents)
        position = self.state.after_step(step_index, latents)
        try:
            self._on_step(step_index, latents)
        except Cancelled:
            self._keeper.stopped(position, self._state)
            raise
        self._keeper.offer(position, self._state)

    def _state(self) -> Mapping[str, Any]:
        self._finite.settle()
        return self.state.state()

    def window(self, step_index: int, windows: WindowsDone) -> None:
        """A window of a step was made, not its last one."""
        self._keeper.offer(self.state.after_window(step_index, windows), self._state)
