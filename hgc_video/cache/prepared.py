"""A plan made ready to be carried out: per step, which layers run, are read or must be kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..plan.adaptive import (
    AdaptivePlan,
    Decide,
    Decision,
    Signals,
    decider_state,
    restored_decider,
)
from ..plan.cost import site_macs
from ..plan.graph import BlockGraph
from ..plan.liveness import Live, kept, live, made, reads
from ..plan.schedule import Plan, StepPlan
from ..plan.validate import check


@dataclass(frozen=True)
class PreparedStep:
    """What the engine does at one step: sets of names, so that a look-up is all it takes.

    keep: what is put into the store when it is made; after: what stays there when the step is done. Both are
    names, with how many of the last values.
    macs: of what runs, for all of the graph's frames; where text is shared, without projecting it.
    mixed: some dead layer is handed a live tensor together with a stand-in, which must then have the
    full number of rows; otherwise stand-ins have none, and what the model does with them costs nothing.
    fullest: of the steps that could be chosen, it computes most.
    """

    index: int
    step: StepPlan
    live: Live
    keep: Mapping[str, int]
    after: Mapping[str, int]
    macs: Mapping[str, int]
    mixed: bool
    fullest: bool

    def idle(self, prefix: str) -> bool:
        """Whether nothing of a model ("unet", "controlnet.nets.1") is computed or read."""
        names = self.live.computed | self.live.read
        return not any(name.startswith(f"{prefix}.") for name in names)


class PreparedSchedule:
    """The works of a run, one after the other; an adaptive plan's is chosen when its step begins."""

    def __init__(self, plan: Plan, graph: BlockGraph) -> None:
        self.plan, self.graph = check(plan, graph), graph
        self._choices, self._keep = plan.choices, kept(graph, plan)
        self._bound = plan.upper_bound()
        self.reads_clean = any(choice.clean for some in self._choices for choice in some)
        self._reads: tuple[Mapping[str, int], ...] | None = None
        if not plan.is_adaptive:
            self._reads = tuple(
                reads(step, live(graph, step, lossless=plan.lossless)) for (step,) in plan.choices
            )
        # Projected text is counted where it is projected: that is once for each text, which no plan knows.
        self._texts_apart = frozenset(graph.attentions) if self._bound.lossless else frozenset()
        self._deciders: dict[int, Decide] = {}

    def __len__(self) -> int:
        return len(self._choices)

    @property
    def adaptive(self) -> bool:
        """Whether steps are chosen at run time."""
        return self.plan.is_adaptive

    def reads(self, index: int) -> Mapping[str, int] | None:
        """What a step reads of what was kept before it: names and how many of their last values; None
        where that is decided at run time."""
        return None if self._reads is None else self._reads[index]

    def begin(self) -> None:
        """Starts a run."""
        self._deciders.clear()

    def state(self) -> dict[str, Any]:
        """What later steps are decided by, as plain data."""
        deciders = [[window, decider_state(d)] for window, d in self._deciders.items()]
        return {"deciders": deciders}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` told."""
        if isinstance(self.plan, AdaptivePlan):
            for window, told in state["deciders"]:
                self._deciders[window] = restored_decider(self.plan.start(), told)

    def at(self, index: int, window: int, signals: Signals) -> PreparedStep:
        """The work of a window's step."""
        choices, decision = self._choices[index], Decision(0, "")
        if isinstance(self.plan, AdaptivePlan):
            if window not in self._deciders:
                self._deciders[window] = self.plan.start()
            decision = self._deciders[window](len(choices), signals)
        return self._work(index, decision.of(choices), decision.choice == 0)

    def computed(self, work: PreparedStep, why: str) -> PreparedStep:
        """A step that computes what it was to extrapolate. Only what it was to keep all the same is put into
        the store, so that later steps read the values that they were planned for."""
        step, graph = work.step, self.graph
        instead = replace(
            step, reuse=step.reuse & set(graph.names("hint")), deltas=frozenset(), extrapolate=frozenset(),
            coefficients=(), latent_progress=None, clean=(), label="full",
        ).because(why)  # fmt: skip
        put = made(graph, step, work.live, work.index)
        keep = {name: depth for name, depth in work.keep.items() if name in put}
        return replace(self._work(work.index, instead, True), keep=keep, after=work.after)

    def _work(self, index: int, step: StepPlan, fullest: bool) -> PreparedStep:
        keep = self._keep[index]
        alive = live(self.graph, step, lossless=self._bound.lossless)
        macs = site_macs(self.graph, step, alive, self._bound, self._texts_apart)
        mixed = _mixed(self.graph, alive)
        return PreparedStep(index, step, alive, keep, keep, macs, mixed, fullest)


def _mixed(graph: BlockGraph, alive: Live) -> bool:
    there = alive.computed | alive.held | alive.added
    for layer in graph.layers:
        # The host joins the inputs of a held layer too.
        if layer.name not in alive.computed | alive.added:
            inputs = [i for i in layer.inputs if graph.by_name[i].kind not in ("time", "hint")]
            if len({i in there for i in inputs}) > 1:
                return True
    return False
