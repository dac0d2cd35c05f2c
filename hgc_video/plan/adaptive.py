"""Policies that decide at run time: from plain numbers, among steps that were planned before.

The engine measures on features that are computed anyway and asks; what was done is a schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from .check import check
from .exact import once_per_run
from .graph import BlockGraph
from .liveness import live, reads
from .schedule import Schedule, StepPlan


class Signals(Protocol):
    """What is measured; each is read only when asked for. Means of absolute values."""

    @property
    def computed_last(self) -> bool:
        """Whether the step before this one computed the prediction."""

    def input_change(self) -> float:
        """Of this step's latents minus those of the step before; 0 at step 0."""

    def output_change(self) -> float:
        """Of the last computed prediction minus the one computed before it; 0 without two."""

    def output_size(self) -> float:
        """Of the last computed prediction."""

    def drift(self) -> float:
        """Of the outermost block's output at the step before minus its value at the last refresh,
        relative to that value; 0 where that step was the refresh."""


Decide = Callable[[int, Signals], int]


@dataclass(frozen=True)
class AdaptivePlan:
    """Per step the step plans to choose from, the fullest first, and `start()`, which gives a fresh
    decider for a run: called at every step with the number of choices and the signals, it gives the
    place of the one to take."""

    name: str
    choices: tuple[tuple[StepPlan, ...], ...]
    start: Callable[[], Decide]
    lossless: bool = True

    def __len__(self) -> int:
        return len(self.choices)

    def extreme(self, *, fullest: bool) -> Schedule:
        """The schedule of a run that always takes the first choice, or always the last one."""
        steps = tuple(choices[0 if fullest else -1] for choices in self.choices)
        return Schedule(self.name, steps, self.lossless)

    def silence(self, steps: Mapping[int, Collection[str]]) -> AdaptivePlan:
        """The plan told which ControlNets add nothing at which steps."""
        choices = tuple(
            tuple(replace(c, silent=c.silent | frozenset(steps.get(i, ()))) for c in some)
            for i, some in enumerate(self.choices)
        )
        return replace(self, choices=choices)

    def check(self, graph: BlockGraph) -> AdaptivePlan:
        """The plan itself, or PlanError: every choice must be possible whatever was chosen before."""
        fullest = self.extreme(fullest=True).steps
        for i, choices in enumerate(self.choices):
            for choice in choices:
                check(Schedule(self.name, (*fullest[:i], choice), self.lossless), graph)
        return self

    def kept(self, graph: BlockGraph) -> tuple[Mapping[str, int], ...]:
        """For every step what the store holds when it ends, as any later choice may read it."""
        later: dict[str, int] = {}
        held: list[Mapping[str, int]] = []
        for choices in reversed(self.choices):
            held.append(dict(later))
            for choice in choices:
                for name, depth in reads(
                    choice, live(graph, choice, lossless=self.lossless)
                ).items():
                    later[name] = max(later.get(name, 0), depth)
        return tuple(reversed(held))


def exact_choices(
    choices: tuple[tuple[StepPlan, ...], ...], graph: BlockGraph
) -> tuple[tuple[StepPlan, ...], ...]:
    """The choices with the exact savings: what is computed once is reused after step 0, a full one."""
    once = once_per_run(graph)
    return (
        choices[0],
        *(tuple(replace(c, reuse=c.reuse | once) for c in some) for some in choices[1:]),
    )
