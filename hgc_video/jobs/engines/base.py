"""What a batch asks of an engine."""

from __future__ import annotations

from typing import Protocol

from ..task import Event, Task

MOST_DEATHS_IN_A_ROW = 3  # of one slot's workers, none of which ended a task; then it is left empty


class Engine(Protocol):
    """Workers in slots, each on a device of its own. A worker that dies is replaced a few times."""

    def start(self) -> None:
        """Starts the workers; each slot says `Ready` when it takes tasks."""
        ...

    def give(self, slot: str, task: Task) -> None:
        """Gives a task to a worker that is ready."""
        ...

    def stop(self, slot: str) -> None:
        """Asks a worker to stop its task after the step it is at."""
        ...

    def events(self, timeout_s: float) -> list[Event]:
        """What happened, waited for this long if nothing did."""
        ...

    def is_empty(self) -> bool:
        """Whether no worker is there and none will come."""
        ...

    def close(self) -> None:
        """Ends every worker at once."""
        ...
