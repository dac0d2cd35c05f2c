"""A schedule: per step, which outputs come from the store and how guidance is computed.

Pure data with a text chart and a YAML round trip. Which schedule is good is the policies' business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from ..errors import PlanError, nearest
from .graph import BlockGraph

Cross = Literal["compute", "fuse", "fused"]


@dataclass(frozen=True)
class StepPlan:
    """One denoising step.

    reuse: names of the layers whose outputs are taken from the store (hold).
    branches: 2 computes the prompt-free branch too, 1 is after the gate (or without guidance).
    cross: cross-attention of the UNet is computed; computed and its mean over both branches kept
        (`fuse`, the gate step); or that mean is used instead (`fused`), T-GATE eq. 6 (2404.02747).
    """

    reuse: frozenset[str] = frozenset()
    branches: int = 2
    cross: Cross = "compute"
    label: str = "full"


@dataclass(frozen=True)
class Schedule:
    """The plan of a whole run: `name`, its steps, and whether text keys and values are projected once."""

    name: str
    steps: tuple[StepPlan, ...]
    share_text: bool = True
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.steps)

    def check(self, graph: BlockGraph) -> Schedule:
        """The schedule itself, or PlanError: unknown names, reuse of what was never computed."""
        stored: set[str] = set()
        branches = graph.branches
        fused = False
        for i, step in enumerate(self.steps):
            _check_names(step, graph, i)
            if step.branches > branches:
                raise PlanError(
                    f"step {i} computes {step.branches} branches after the gate; keep {branches}"
                )
            reads = graph.read(step.reuse)
            if step.branches < branches:
                stored = {name for name in stored if graph.by_name[name].kind == "hint"}
            branches = step.branches
            missing = sorted(reads - stored)
            if missing:
                raise PlanError(
                    f"step {i} reuses {missing[0]}, which no step before it has computed"
                )
            if step.cross == "fused" and not fused:
                raise PlanError(f"step {i} uses fused cross-attention before a step has fused it")
            fused = fused or step.cross == "fuse"
            stored |= graph.alive(step.reuse)
        return self

    def to_yaml(self) -> str:
        """The schedule as text; `from_yaml` reads it back."""
        steps = [
            {"label": s.label, "branches": s.branches, "cross": s.cross, "reuse": sorted(s.reuse)}
            for s in self.steps
        ]
        data = {"name": self.name, "share_text": self.share_text, "steps": steps}
        return str(yaml.safe_dump(data, sort_keys=False))

    @classmethod
    def from_yaml(cls, text: str) -> Schedule:
        """The schedule that `to_yaml` wrote; PlanError says what is wrong with another."""
        try:
            data: dict[str, Any] = yaml.safe_load(text)
            steps = tuple(
                StepPlan(frozenset(s["reuse"]), int(s["branches"]), s["cross"], s["label"])
                for s in data["steps"]
            )
            return cls(data["name"], steps, bool(data["share_text"]))
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise PlanError(f"this is no schedule: {error!r}; give what to_yaml wrote") from error


def _check_names(step: StepPlan, graph: BlockGraph, index: int) -> None:
    for name in step.reuse:
        if name not in graph.by_name:
            close = nearest(name, graph.by_name).split("(")[0]
            raise PlanError(f"step {index} reuses {name}, which the model has not; {close}")
