"""What a run executed: the steps that were carried out, and the MACs counted where a module really ran."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..plan.cost import PARTS, by_part
from ..plan.graph import BlockGraph
from ..plan.schedule import Plan, Schedule, StepPlan


class ExecutionLog:
    """`executed` lists the MACs by part of every step that was run, `controlnet_branches` is how many
    branches the pipeline ran a ControlNet on."""

    def __init__(self, plan: Plan, graph: BlockGraph) -> None:
        self._plan, self._graph = plan, graph
        self.begin()

    def begin(self) -> None:
        """A run begins."""
        self.executed: list[dict[str, int]] = []
        self._steps: list[StepPlan] = []
        self._owed = by_part({})
        self.controlnet_branches = self._graph.branches

    def state(self) -> dict[str, Any]:
        """What was executed so far, as plain data."""
        steps = Schedule("", tuple(self._steps)).to_dict()["steps"]
        executed = [dict(step) for step in self.executed]
        told = {"executed": executed, "owed": dict(self._owed), "steps": steps}
        return {**told, "controlnet_branches": self.controlnet_branches}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` told."""
        self._steps = list(Schedule.from_dict({"name": "", "steps": state["steps"]}).steps)
        self.executed = [dict(step) for step in state["executed"]]
        self._owed = dict(state["owed"])
        self.controlnet_branches = state["controlnet_branches"]

    def at(self, index: int, step: StepPlan) -> None:
        """A window's step begins; the first window speaks for the step."""
        if len(self._steps) == index:
            self._steps.append(step)
            self.executed.append(self._owed)
            self._owed = by_part({})

    def withdraw(self, index: int) -> dict[str, int]:
        """Takes back the step that is under way, which is begun anew; the MACs that it took so far."""
        if len(self._steps) <= index:
            return by_part({})
        self._steps.pop()
        return self.executed.pop()

    def owe(self, macs: dict[str, int]) -> None:
        """What was executed before, in vain, is the next step's."""
        self._owed = dict(macs)

    def count(self, name: str, macs: int, rows: int) -> None:
        """Adds the MACs of what ran for so many rows; they are given for the graph's frames. A ControlNet
        may have got fewer rows, and several clips of one call have more."""
        if rows != self._graph.num_frames:
            macs = macs * rows // self._graph.num_frames
        self.add(name, macs)

    def add(self, name: str, macs: int) -> None:
        """Adds MACs as they are."""
        self.executed[-1][name.partition(".")[0]] += macs

    def macs_by_part(self) -> dict[str, int]:
        """MACs executed since the run began."""
        return {part: sum(step[part] for step in self.executed) for part in PARTS}

    def record(self) -> Schedule:
        """The steps that were carried out, as a schedule."""
        return self._plan.executed(self._steps)
