"""When the windows of a long clip may move, so that seams do not stand still."""

from __future__ import annotations

from .exact import once_per_run
from .graph import WHOLE, BlockGraph
from .liveness import kept
from .schedule import Schedule


def shifts(schedule: Schedule | None, graph: BlockGraph, num_steps: int) -> tuple[bool, ...]:
    """For every step whether its windows are the shifted ones.

    Windows move only where nothing is held for the windows before, but what is the same for the whole
    run, which is made anew for a window that has none yet. Without a schedule they move at every step.
    """
    if schedule is None:
        return tuple(i % 2 == 1 for i in range(num_steps))
    once, moved, told = once_per_run(graph), False, []
    held: set[str] = {WHOLE}
    for keep in kept(graph, schedule):
        if not held:
            moved = not moved
        told.append(moved)
        held = set(keep) - once
    return tuple(told)


def padded(moves: tuple[bool, ...], num_steps: int) -> tuple[bool, ...]:
    """The same moves for a run of another number of steps; further steps have the plain windows."""
    return (moves + (False,) * num_steps)[:num_steps]
