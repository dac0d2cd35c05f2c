"""Rows that are the same for every step, frame or branch are computed once and shared.

Exact: equal rows through the same linear or convolutional layer give equal results. Whether rows are
equal is looked at once per run, when they are first computed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class TextSite:
    """A projection of the text to keys or values: once per prompt, for all frames and steps.

    `branches` tells how many guidance branches the rows of the coming call are of.
    """

    def __init__(self) -> None:
        self.branches = 1
        self.made: Tensor | None = None
        self.same = False

    def __call__(self, forward: Any, states: Tensor) -> Tensor:
        """`forward(states)` for states (branches·f n d) in which all frames of a branch may be equal."""
        rows = len(states)
        if self.made is None or len(self.made) < (self.branches if self.same else rows):
            grouped = states.unflatten(0, (self.branches, -1))
            self.same = bool((grouped == grouped[:, :1]).all())
            self.made = forward(grouped[:, 0].contiguous() if self.same else states)
        if not self.same:
            return self.made[-rows:]  # after the gate the prompt's branch is left, which is last
        return self.made[-self.branches :].repeat_interleave(rows // self.branches, 0)

    def forget(self) -> None:
        """Lets go of what was made, for a new run."""
        self.made = None

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return 0 if self.made is None else self.made.untyped_storage().nbytes()


class HintSite:
    """The control clip's encoder: once for both branches, which see the same clip as a rule."""

    def __init__(self, branches: int) -> None:
        self.branches = branches
        self.made: Tensor | None = None

    def encode(self, forward: Any, conditioning: Tensor) -> Tensor:
        """`forward(conditioning)` for conditioning (branches·f 3 H W)."""
        first, *others = conditioning.chunk(self.branches)
        same = all(torch.equal(first, other) for other in others)
        self.made = forward(first) if same else forward(conditioning)
        return self.rows(len(conditioning))

    def rows(self, rows: int) -> Tensor:
        """What was encoded, for so many rows."""
        assert self.made is not None
        if rows > len(self.made):
            return torch.cat([self.made] * (rows // len(self.made)))
        return self.made[-rows:]

    def forget(self) -> None:
        """Lets go of what was made, for a new run."""
        self.made = None

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return 0 if self.made is None else self.made.untyped_storage().nbytes()
