"""What the windows of a step do together, where each of them has its own signals: all or none."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Agreement:
    """A flag of all windows of a step, as its first window finds it: whether any of them raised it last.

    A window that raises it later in the step counts from the next step on, as the windows before have run.

    step: the one that `agreed` is of. said: by window, what it said last.
    """

    step: int = -1
    agreed: bool = False
    said: dict[int, bool] = field(default_factory=dict)

    def of(self, window: int, step: int, flag: bool) -> bool:
        """What holds for a window that says so at a step; the same for all windows of the step."""
        self.said[window] = flag
        if step != self.step:
            self.step, self.agreed = step, any(self.said.values())
        return self.agreed

    def only_windows(self, windows: Collection[int]) -> None:
        """Forgets what other windows said."""
        self.said = {window: flag for window, flag in self.said.items() if window in windows}

    def state(self) -> dict[str, Any]:
        """All of it, as plain data."""
        return {**asdict(self), "said": [list(said) for said in self.said.items()]}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Agreement:
        """As `state` told it."""
        return cls(state["step"], state["agreed"], dict(state["said"]))
