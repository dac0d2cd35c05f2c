"""Rows that are the same for every step, frame or branch are computed once and shared.

Exact: equal rows through the same linear or convolutional layer give equal results. Whether rows are
equal is looked at once per run, when they are first computed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .tally import storage_nbytes


class TextSite:
    """A projection of the text to keys or values: once per prompt, for all frames, steps and windows.

    `branches` and `window` tell whose rows the coming call brings.
    """

    def __init__(self) -> None:
        self.branches, self.window = 1, 0
        self._made: dict[int, _Projected] = {}

    def __call__(self, forward: Any, states: Tensor) -> Tensor:
        """`forward(states)` for states (branches·f n d) in which all frames of a branch may be equal."""
        rows = len(states)
        known = self._made.get(self.window)
        if known is None or len(known.out) < (self.branches if known.same else rows):
            known = self._made[self.window] = self._project(forward, states)
        if not known.same:
            return known.out[-rows:]  # after the gate the prompt's branch is left, which is last
        return known.out[-self.branches :].repeat_interleave(rows // self.branches, 0)

    def _project(self, forward: Any, states: Tensor) -> _Projected:
        grouped = states.unflatten(0, (self.branches, -1))
        same = states.is_meta or bool((grouped == grouped[:, :1]).all())
        rows = grouped[:, 0].contiguous() if same else states
        for other in self._made.values():
            if other.same and same and _equal(other.rows, rows):
                return other
        return _Projected(rows, forward(rows), same)

    def forget(self) -> None:
        """Lets go of what was made, for a new run."""
        self._made.clear()

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return storage_nbytes(known.out for known in self._made.values())


class _Projected(NamedTuple):
    rows: Tensor
    out: Tensor
    same: bool


def encode_hint(forward: Any, conditioning: Tensor, branches: int) -> Tensor:
    """The control clip's encoder for conditioning (branches·f 3 H W): of one branch where both see the
    same clip, as a rule."""
    first, *others = conditioning.chunk(branches)
    same = all(_equal(first, other) for other in others)
    encoded: Tensor = forward(first) if same else forward(conditioning)
    return encoded


def hint_rows(encoded: Tensor, rows: int) -> Tensor:
    """What was encoded, for so many rows."""
    if rows > len(encoded):
        return torch.cat([encoded] * (rows // len(encoded)))
    return encoded[-rows:]


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether rows are the same; without numbers (on the meta device) they are taken to be."""
    return a.is_meta or torch.equal(a, b)
