"""Where a stock pipeline's own loop is, told by the calls that it makes to its scheduler.

At each step every loop of diffusers scales the latents, runs the models and steps. Counting steps of
this scheduler instance is exact; models are never counted, nor are timesteps searched. What is done
between a step and the next scaling, in a callback above all, is no step's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .patch import Patch, undo_all

Begin = Callable[[int, Tensor], None]


class Clock:
    """Wraps one scheduler for one loop. `begins(step_index, latents)` is called before the models of a
    step, with the scaled latents as the models get them, `ends()` after them."""

    def __init__(self, scheduler: Any, begins: Begin, ends: Callable[[], None]) -> None:
        self.scheduler, self._begins, self._ends = scheduler, begins, ends
        self.index, self._open = 0, False
        self._patches: list[Patch] = []

    def start(self) -> None:
        """Begins to listen, or goes on where it stopped."""
        for name, around in (("scale_model_input", self._scale), ("step", self._step)):
            self._patches.append(Patch(self.scheduler, around, name))

    def stop(self) -> None:
        """Puts the scheduler back as it was."""
        undo_all(self._patches)

    def _scale(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        scaled = original(*args, **kwargs)
        if not self._open:  # guess mode scales a second time within a step
            self._open = True
            self._begins(self.index, scaled)
        return scaled

    def _step(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        if self._open:
            self._open = False
            self._ends()
        done = original(*args, **kwargs)
        self.index += 1
        return done
