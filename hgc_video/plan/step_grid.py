"""A plan as a grid of layers and steps: what happens to each layer at each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from .explain import block_of
from .graph import PREDICTION, BlockGraph, Layer
from .liveness import CFG_DELTA, Live, live
from .schedule import Plan, StepPlan

COMPUTED, PARTLY, REUSED, SKIPPED = "computed", "computed, attention reused", "reused", "skipped"
STATES = (COMPUTED, PARTLY, REUSED, SKIPPED)


@dataclass(frozen=True)
class StepGrid:
    """What happens to each layer at each step.

    layers: names in the order in which they run; first the whole prediction and the guidance difference, of
        plans that reuse them.
    states: one of STATES for every layer and step, as [layer][step].
    """

    layers: tuple[str, ...]
    states: tuple[tuple[str, ...], ...]

    @property
    def blocks(self) -> tuple[tuple[str, int, int], ...]:
        """Blocks with the first of their layers and the one after their last."""
        made, start = [], 0
        for name, group in groupby(map(block_of, self.layers)):
            stop = start + len(list(group))
            made.append((name, start, stop))
            start = stop
        return tuple(made)

    def count(self, step: int) -> dict[str, int]:
        """How many layers are in each state at a step."""
        column = [row[step] for row in self.states]
        return {state: column.count(state) for state in STATES}


def step_grid(graph: BlockGraph, plan: Plan) -> StepGrid:
    """The grid of a plan; of an adaptive one, of the run that costs most."""
    schedule = plan.upper_bound()
    alive = [live(graph, step, lossless=schedule.lossless) for step in schedule.steps]
    rows: dict[str, tuple[str, ...]] = {}
    whole = [_of_prediction(step, at) for step, at in zip(schedule.steps, alive, strict=True)]
    if REUSED in whole:
        rows[PREDICTION] = tuple(whole)
    guidance = [_of_guidance(step) for step in schedule.steps]
    if REUSED in guidance:
        rows[CFG_DELTA] = tuple(guidance)
    for layer in graph.layers:
        if layer.kind != "join":  # a sum of others, which costs nothing
            rows[layer.name] = tuple(_of_layer(layer, at) for at in alive)
    return StepGrid(tuple(rows), tuple(rows.values()))


def in_words(counts: dict[str, int]) -> str:
    """Counts of `StepGrid.count` in one line."""
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def _of_layer(layer: Layer, alive: Live) -> str:
    if layer.name in alive.computed:
        return PARTLY if _any_held(layer, alive) else COMPUTED
    return REUSED if layer.name in alive.held | alive.added else SKIPPED


def _any_held(layer: Layer, alive: Live) -> bool:
    names: Sequence[str] = [attention.name for attention in layer.attentions]
    return any(name in alive.held for name in names)


def _of_prediction(step: StepPlan, alive: Live) -> str:
    return REUSED if PREDICTION in alive.added or step.clean else COMPUTED


def _of_guidance(step: StepPlan) -> str:
    if step.cfg_delta is not None:
        return REUSED
    return COMPUTED if step.branches == 2 else SKIPPED
