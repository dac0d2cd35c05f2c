"""Half precision ends at 65504: which steps must not extrapolate, as what they read could exceed that."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..plan.coefficients import slope_of
from ..plan.liveness import delta
from ..plan.schedule import Plan, StepPlan
from .late_numbers import LateNumbers, largest
from .latent_progress import most_progress

_MOST = torch.finfo(torch.float16).max


class OverflowGuard:
    """Keeps the largest magnitude of every kept value that the plan extrapolates, in float16 alone.

    On a GPU the magnitudes of a step that keeps such values are copied together, once, and are read when a
    later step is about to extrapolate them: a wait at most once for each such step, and none for any other
    dtype or plan.
    """

    def __init__(self, plan: Plan) -> None:
        choices = [step for some in plan.choices for step in some if step.coefficients]
        names = {name for step in choices for name in step.extrapolate}
        self._watched = names | {delta(name) for name in names}
        self._depth = max((step.depth for step in choices), default=0)
        self.forget()

    def forget(self) -> None:
        """Forgets the run."""
        self._seen: list[tuple[int, str, Tensor]] = []
        self._pending: list[tuple[list[tuple[int, str]], LateNumbers]] = []
        self._known: dict[tuple[int, str], tuple[float, ...]] = {}
        self._decided: tuple[int, str] = (-1, "")  # at which step, and which value, if any, exceeds

    def put(self, window: int, name: str, value: Tensor) -> None:
        """A value is kept now; one without numbers (the meta device) exceeds nothing."""
        if value.dtype == torch.float16 and name in self._watched and not value.is_meta:
            self._seen.append((window, name, largest(value)))

    def sent(self) -> None:
        """The step's models have run: its magnitudes go to the host."""
        if self._seen:
            keys = [(window, name) for window, name, _ in self._seen]
            self._pending.append((keys, LateNumbers(torch.stack([m for *_, m in self._seen]))))
            self._seen = []

    def exceeded_by(
        self, windows: Collection[int], step: StepPlan, reads: Collection[str], index: int
    ) -> str:
        """The first of the kept values that a step `index` reads which could exceed the range where it is
        extrapolated, in any of its windows; nothing where none could. All windows of a step get the
        same answer, as one that computes takes residuals of shared frames from the window before it."""
        names = [name for name in sorted(reads) if name in self._watched]
        if not step.coefficients or not names:
            return ""
        if self._decided[0] != index or len(windows) == 1:
            self._arrive()
            found = (self._exceeded_in(window, step, names, index) for window in sorted(windows))
            self._decided = index, next(filter(None, found), "")
        return self._decided[1]

    def _exceeded_in(self, window: int, step: StepPlan, names: Sequence[str], index: int) -> str:
        follows = step.latent_progress
        most = None if follows is None else most_progress(follows, index)
        for name in names:
            known = self._known.get((window, name), ())[: step.depth]
            # Not "exceeds": of NaN neither is true.
            if known and not _bound(known, step.coefficients, most) <= _MOST:
                return name
        return ""

    def state(self) -> dict[str, Any]:
        """What is known, as plain data."""
        self.sent()
        self._arrive()
        known = [[window, name, list(known)] for (window, name), known in self._known.items()]
        return {"known": known, "decided": self._decided}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Knows what `state` told."""
        self._known = {(window, name): tuple(known) for window, name, known in state["known"]}
        self._decided = state["decided"]

    def _arrive(self) -> None:
        for keys, numbers in self._pending:
            for key, number in zip(keys, numbers.read(), strict=True):
                self._known[key] = (number, *self._known.get(key, ()))[: self._depth]
        self._pending = []


def _bound(known: Sequence[float], coefficients: tuple[float, ...], most: float | None) -> float:
    """The largest magnitude that `combination.combined` meets in the values' own dtype, at the most progress
    of the latents; None where that is not measured."""
    newest = known[0]
    slope = slope_of(coefficients)
    if slope is not None and len(known) > 1:
        way = newest + known[1]
        return max(way, newest + abs(slope) * (1.0 if most is None else most) * way)
    mixed = sum(abs(c) * m for c, m in zip(coefficients, known, strict=False))
    if most is None:
        return mixed
    way = mixed + newest
    return max(way, newest + most * way)
