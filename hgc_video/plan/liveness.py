"""What a step computes, reads and leaves out, and what the store must hold from step to step.

Everything that only feeds a reused output is dead; nothing else needs to know the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .graph import PREDICTION, BlockGraph
from .schedule import Plan, StepPlan

CFG_DELTA = f"{PREDICTION}.guidance_difference"  # the store's name for uncond - cond
LATENTS = f"{PREDICTION}.latents@"  # what its names for the latents at a step begin with
CLEAN = f"{PREDICTION}.clean@"  # and for the clean latents that a step's prediction stands for


def delta(name: str) -> str:
    """The store's name for a layer's delta, beside its output's, which is the layer's own."""
    return f"{name}+"


def latents_at(index: int) -> str:
    """The store's name for the latents that a step began with."""
    return f"{LATENTS}{index}"


def clean_at(index: int) -> str:
    """The store's name for the clean latents that a step's prediction stands for."""
    return f"{CLEAN}{index}"


@dataclass(frozen=True)
class Live:
    """Layers whose modules run; layers whose stored delta is added to their input; stored
    outputs of layers and attentions that are read; attentions that run."""

    computed: frozenset[str]
    added: frozenset[str]
    held: frozenset[str]
    attended: frozenset[str]

    @property
    def read(self) -> frozenset[str]:
        """The store's names of all that is read."""
        return self.held | {delta(name) for name in self.added}


def live(graph: BlockGraph, step: StepPlan, *, lossless: bool = True) -> Live:
    """The liveness of one step."""
    computed: set[str] = set()
    added, held = set(step.deltas & {PREDICTION}), set()
    waiting = [] if added or step.clean else [graph.output]
    if not lossless:
        waiting += [name for name in graph.residuals() if name not in step.reuse]
        waiting += step.always_compute
    seen: set[str] = set()
    parts: set[str] = set()
    silent = tuple(f"{net}." for net in step.inactive_controlnets) if lossless else ()
    while waiting:
        name = waiting.pop()
        if name in seen or (silent and name.startswith(silent)):
            continue
        seen.add(name)
        if name in step.reuse or name in parts:
            if graph.by_name[name].kind == "join":  # a sum; what it adds up is held
                parts.update(graph.by_name[name].inputs)
                waiting.extend(graph.by_name[name].inputs)
            else:
                held.add(name)
            continue
        (added if name in step.deltas else computed).add(name)
        waiting.extend(graph.by_name[name].inputs)
    inner = {a.name for name in computed for a in graph.by_name[name].attentions}
    reused = inner & step.reuse
    return Live(
        frozenset(computed),
        frozenset(added),
        frozenset(held | reused),
        frozenset(inner - reused),
    )


def made(graph: BlockGraph, step: StepPlan, alive: Live, index: int) -> dict[str, int]:
    """The store's names of all that this step could put there, with the branches they are made for."""
    names = {latents_at(index): 1}  # the same for both branches
    for name in alive.computed:
        layer = graph.by_name[name]
        if layer.kind != "join":
            names[name] = step.branches
        if layer.has_delta:
            names[delta(name)] = step.branches
    for name in alive.attended:
        names[name] = 1 if name in step.average_branches else step.branches
    if step.clean or graph.output in alive.computed:
        names[clean_at(index)] = step.branches
    if graph.output in alive.computed:
        names[delta(PREDICTION)] = step.branches
        if step.branches == 2:
            names[CFG_DELTA] = 1
    return names


def reads(step: StepPlan, alive: Live) -> dict[str, int]:
    """The store's names that this step reads, with how many of the last values it needs."""
    sloped = step.extrapolate | {delta(name) for name in step.extrapolate}
    names = {name: step.depth if name in sloped else 1 for name in alive.read}
    if step.cfg_delta is not None:
        names[CFG_DELTA] = 1
    names |= {clean_at(index): 1 for index, _ in step.clean}
    return names | {latents_at(index): 1 for index in step.latent_progress or ()}


def kept(graph: BlockGraph, plan: Plan) -> tuple[Mapping[str, int], ...]:
    """For every step what the store holds when it ends, because a later step reads it, or, of an adaptive
    plan, because any later choice may read it: the names and how many of their last values."""
    later: dict[str, int] = {}
    held: list[Mapping[str, int]] = []
    for index, choices in reversed(list(enumerate(plan.choices))):
        held.append(dict(later))
        if not plan.is_adaptive:
            later = _before(graph, choices[0], index, later, lossless=plan.lossless)
        for choice in choices:
            for name, depth in reads(choice, live(graph, choice, lossless=plan.lossless)).items():
                later[name] = max(later.get(name, 0), depth)
    return tuple(reversed(held))


def _before(
    graph: BlockGraph, step: StepPlan, index: int, later: Mapping[str, int], *, lossless: bool
) -> dict[str, int]:
    """What must be held when a step begins for what is read after it: what the step makes itself need
    not."""
    here = made(graph, step, live(graph, step, lossless=lossless), index)
    return {
        name: depth - 1 if name in here else depth
        for name, depth in later.items()
        if name not in here or depth > 1
    }
