"""A schedule made ready to be looked up: per step, which layers run, are read or must be kept."""

from __future__ import annotations

from dataclasses import dataclass

from ..plan.cost import kept
from ..plan.graph import BlockGraph
from ..plan.schedule import Cross, Schedule


@dataclass(frozen=True)
class StepWork:
    """What the engine does at one step: sets of layer names, so that a look-up is all it takes."""

    index: int
    alive: frozenset[str]
    read: frozenset[str]
    keep: frozenset[str]
    branches: int
    cross: Cross

    def idle(self, part: str) -> bool:
        """Whether nothing of a part ("unet", "controlnet") is computed or read."""
        return not any(name.startswith(part + ".") for name in self.alive | self.read)


def prepare(schedule: Schedule, graph: BlockGraph) -> tuple[StepWork, ...]:
    """The work of every step of a checked schedule."""
    keep = kept(graph, schedule)
    return tuple(
        StepWork(
            i, graph.alive(step.reuse), graph.read(step.reuse), keep[i], step.branches, step.cross
        )
        for i, step in enumerate(schedule.steps)
    )
