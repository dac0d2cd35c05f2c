"""Rows that are the same for every step, frame or branch are computed once and shared.

Exact: equal rows through the same linear or convolutional layer give equal results.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Forward = Callable[[Tensor], Tensor]


class SharedRows:
    """What was computed once per run from inputs (rows …) that no step changes.

    Whether rows are equal is looked up once per input and run, on the first step.
    """

    def __init__(self, branches: int) -> None:
        self.branches = branches
        self._made: dict[str, tuple[Tensor, int]] = {}

    def clear(self) -> None:
        """Forgets everything, for a new run."""
        self._made.clear()

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return sum(made.untyped_storage().nbytes() for made, _ in self._made.values())

    def rows(self, name: str, forward: Forward, states: Tensor, branches: int) -> Tensor:
        """`forward(states)` for states (branches·f n d) in which all frames of a branch may be equal."""
        if name not in self._made:
            grouped = states.unflatten(0, (branches, -1))
            frames = grouped.shape[1]
            same = bool((grouped == grouped[:, :1]).all())
            repeats = frames if same else 1
            self._made[name] = (
                forward(states[::repeats].contiguous() if same else states),
                repeats,
            )
        made, repeats = self._made[name]
        made = made[
            -(len(states) // repeats) :
        ]  # after the gate the prompt's branch, which is last
        return made.repeat_interleave(repeats, 0) if repeats > 1 else made

    def halves(self, name: str, forward: Forward, states: Tensor, branches: int) -> Tensor:
        """`forward(states)` for states (branches·f …) that may be the same in both branches."""
        if name not in self._made:
            first, *others = states.chunk(branches)
            same = all(torch.equal(first, other) for other in others)
            self._made[name] = (forward(first), branches) if same else (forward(states), 1)
        made, repeats = self._made[name]
        if repeats > 1 and len(states) > len(made):
            return torch.cat([made] * (len(states) // len(made)))
        return made[-len(states) :]
