"""Where the caches of idle windows live, and what each place costs: copies, or computing again.

Only one window of a long clip is at work at a time; what the others keep from step to step can stay on
the device, wait in host memory, or be dropped, so that every step of every window computes in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..adaptive import AdaptivePlan
from ..cost import Cost, cost, kept_for_any
from ..graph import BlockGraph, Layer
from ..liveness import kept, live, reads
from ..schedule import Plan, Schedule, StepPlan
from .throughput import Throughput
from .windows import Windows, over_windows, shifts, windowed

DEVICE, HOST, RECOMPUTE = "device", "host", "recompute"
RESIDENT_WINDOWS = (
    2  # windows whose values are on the device under HOST: the one at work and the next one
)


@dataclass(frozen=True)
class RunCost:
    """What a run of all windows does beside its peak: MACs of UNet and ControlNet, how many of them the
    frames that windows share add, and bytes copied to host memory and back."""

    macs: int = 0
    macs_overlap: int = 0
    to_host: int = 0
    to_device: int = 0

    def compute_s(self, rates: Throughput) -> float:
        """Seconds of the MACs."""
        return self.macs / rates.macs_per_s

    def copy_s(self, rates: Throughput) -> float:
        """Seconds of the copies; they run beside the compute, so that this is the most they can cost."""
        return (self.to_host + self.to_device) / rates.bus_nbytes_per_s

    def seconds(self, rates: Throughput) -> float:
        """Seconds of both, one after the other."""
        return self.compute_s(rates) + self.copy_s(rates)


def places(plan: Plan, windows: Windows) -> tuple[str, ...]:
    """Where a plan's idle caches could live. Up to two windows nothing idles for long enough; a plan
    that decides at run time does not know what it would have decided without a cache."""
    if plan.is_stock or len(windows.plain) <= RESIDENT_WINDOWS:
        return (DEVICE,)
    return (DEVICE, HOST) if plan.is_adaptive else (DEVICE, HOST, RECOMPUTE)


def recomputed(schedule: Schedule) -> Schedule:
    """The schedule with nothing kept between steps: what was reused is computed. Branches that were
    dropped stay dropped, unless their kept difference stood in for them."""
    steps = tuple(_computed(step) for step in schedule.steps)
    return replace(schedule, steps=steps)


def _computed(step: StepPlan) -> StepPlan:
    nothing: frozenset[str] = frozenset()
    return replace(
        step, reuse=nothing, deltas=nothing, average_branches=nothing, extrapolate=nothing, coefficients=(),
        latent_progress=None, clean=(), cfg_delta=None,
        branches=2 if step.cfg_delta is not None else step.branches,
        label="recomputed" if step.reuse or step.deltas or step.clean else step.label,
    ).because("idle caches are recomputed")  # fmt: skip


def carried_out(plan: Plan, place: str) -> Plan:
    """The plan that is really run where idle caches live at `place`."""
    return recomputed(plan) if place == RECOMPUTE and isinstance(plan, Schedule) else plan


def moves_of(plan: Plan, graph: BlockGraph, windows: Windows) -> tuple[bool, ...]:
    """Per step whether the windows are the shifted ones; none of them where they never move. Under a net they
    move as without it: what is computed besides leaves less to hold."""
    fixed = plan.fixed if isinstance(plan, AdaptivePlan) else plan
    if len(windows.plain) == 1 or fixed is None:
        return ()
    return shifts(fixed, graph)


def work_of(plan: Plan, graph: BlockGraph, windows: Windows, place: str) -> RunCost:
    """The work of a whole run with idle caches at `place`."""
    plan = carried_out(plan, place)
    spent, moves = cost(graph, plan), moves_of(plan, graph, windows)
    hint = _hints_of_the_shifted(plan, graph, windows, moves)
    macs = sum(macs_of(plan, spent, graph, windows, moves).values())
    times = windows.num_frames / windows.plain[0].length
    once = round(sum(spent.text.values()) * (times - 1))
    alone = spent.total * windows.num_frames // windows.plain[0].length - once
    if place != HOST:
        return RunCost(macs, macs - alone)
    made, read = (
        sum(over_windows(steps, windows, moves).values()) for steps in (spent.made, spent.read)
    )
    first_made = sum(la.nbytes for la in hint)
    return RunCost(macs, macs - alone, made + first_made, read - first_made)


def macs_of(
    plan: Plan, spent: Cost, graph: BlockGraph, windows: Windows, moves: Sequence[bool]
) -> dict[str, int]:
    """MACs by part of a run whose windows each cost `spent` by themselves: a text is projected once for all
    windows, and the hints of shifted windows are encoded beside those of the others."""
    macs = windowed(spent, windows, moves)
    for layer in _hints_of_the_shifted(plan.upper_bound(), graph, windows, moves):
        macs["controlnet"] += layer.macs
    many = {
        "unet": len(windows.plain),
        "controlnet": windows.controlnet_frames() / windows.plain[0].length,
    }
    for part, text in spent.text.items():
        macs[part] -= round(text * (many[part] - 1))
    return macs


def _hints_of_the_shifted(
    plan: Plan, graph: BlockGraph, windows: Windows, moves: Sequence[bool]
) -> list[Layer]:
    """The hint encoders, with MACs and bytes for all frames, where a step that takes hints to be there
    is the first one of the shifted windows, which have none yet."""
    if not isinstance(plan, Schedule) or True not in moves:
        return []
    step = plan.steps[moves.index(True)]
    held = reads(step, live(graph, step, lossless=plan.lossless))
    hints = [graph.by_name[name] for name in graph.names("hint") if name in held]
    clip, length = windows.controlnet_frames(True), windows.plain[0].length
    return [
        replace(la, macs=la.macs * clip // length, nbytes=la.nbytes * clip // length)
        for la in hints
    ]


def kept_nbytes(plan: Plan, graph: BlockGraph, windows: Windows) -> int:
    """The most bytes that the caches of all windows hold at once, wherever they live."""
    moves = moves_of(plan, graph, windows) or (False,) * len(plan)
    shifted_hints = sum(la.nbytes for la in _hints_of_the_shifted(plan, graph, windows, moves))
    steps = zip(_kept(plan, graph), moves, strict=True)
    most = max(sum(over_windows([step], windows, [moved]).values()) for step, moved in steps)
    return most + shifted_hints


def moved_nbytes(plan: Plan, graph: BlockGraph) -> int:
    """The most bytes that one window brings to a step from host memory."""
    # What an adaptive plan reads is decided at run time: it may be all that is kept.
    steps = _kept(plan, graph) if plan.is_adaptive else cost(graph, plan).read
    return max(sum(step.values()) for step in steps)


def _kept(plan: Plan, graph: BlockGraph) -> Sequence[Mapping[str, int]]:
    """Bytes by part that one window keeps after every step."""
    if plan.is_adaptive:
        return tuple(kept_for_any(graph, names) for names in kept(graph, plan))
    return cost(graph, plan).kept
