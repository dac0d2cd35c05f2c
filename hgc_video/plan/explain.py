"""A plan as something to read: per step what is computed, reused, skipped and stored, its MACs, and why.

`summaries` gives a row of data for every step, for reports and charts; `explain` one step in full, for
`hgc-video plan --step`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import PlanError
from .cost import cost, full_cost
from .graph import PREDICTION, BlockGraph
from .liveness import CFG_DELTA, CLEAN, LATENTS, kept, live, made
from .schedule import Plan


@dataclass(frozen=True)
class StepSummary:
    """One step of a plan in numbers: MACs of UNet and ControlNet, of the plan and of the stock models;
    bytes that the store holds when the step ends; where steps were decided on at run time, the relative error
    that the forecast of the step before, which was computed, was measured to have."""

    step: int
    label: str
    branches: int
    controlnet_residuals: int
    num_residuals: int
    macs: int
    macs_stock: int
    stored_nbytes: int
    reason: str
    forecast_error: float | None = None

    def __str__(self) -> str:
        branches = "both branches" if self.branches == 2 else "one branch   "
        control = f"controlnet {self.controlnet_residuals:2d}/{self.num_residuals}"
        share = self.macs / self.macs_stock if self.macs_stock else 0.0
        return (
            f"{self.step:3d}  {self.label:<14} {branches}  {control}  {self.macs / 1e9:8.1f} GMACs  "
            f"{100 * share:5.1f} %  {self.stored_nbytes / 2**20:7.1f} MiB stored"
        )


@dataclass(frozen=True)
class StepExplanation:
    """Layers and attentions by what happens to them at one step.

    computed: layers whose modules run, with all of their attentions but those among `reused`. reused:
    stored outputs that are read; a name with "+" is a stored delta (out - in). skipped: layers that
    neither run nor are read. stored: what this step puts into the store because a later step reads it.
    """

    summary: StepSummary
    computed: tuple[str, ...]
    reused: tuple[str, ...]
    skipped: tuple[str, ...]
    stored: tuple[str, ...]

    def __str__(self) -> str:
        summary = self.summary
        share = 100 * summary.macs / summary.macs_stock
        rows = [
            f"step {summary.step}: {summary.label}, "
            + ("both branches" if summary.branches == 2 else "one branch"),
            f"  why       {summary.reason or 'nothing is reused here'}",
            f"  MACs      {summary.macs / 1e9:.1f} G of {summary.macs_stock / 1e9:.1f} G ({share:.1f} %)",
        ]
        named = (
            ("computed", self.computed), ("reused", self.reused), ("skipped", self.skipped),
            ("stored", self.stored),
        )  # fmt: skip
        for title, names in named:
            rows += _folded(title, names)
        return "\n".join(
            [*rows, f"  store     {summary.stored_nbytes / 2**20:.1f} MiB when it ends"]
        )


def block_of(name: str) -> str:
    """The block that a layer is in, as "unet.up_blocks.2"."""
    return _placed(name)[0]


def tera(macs: int) -> str:
    """MACs in units of 10^12, three digits."""
    return f"{macs / 1e12:.3g}" if macs < 999.5e12 else f"{macs / 1e12:.0f}"


def summaries(graph: BlockGraph, plan: Plan) -> tuple[StepSummary, ...]:
    """A row for every step; of an adaptive plan, of the run that costs most."""
    spent, schedule = cost(graph, plan), plan.upper_bound()
    stock = sum(full_cost(graph, 1).macs[0].values())
    residuals = graph.residuals()
    rows = []
    for i, step in enumerate(schedule.steps):
        computed = live(graph, step, lossless=schedule.lossless).computed
        rows.append(
            StepSummary(
                i,
                step.label,
                step.branches,
                sum(name in computed for name in residuals),
                len(residuals),
                sum(spent.macs[i].values()),
                stock,
                spent.nbytes[i],
                step.reason,
                step.forecast_error,
            )
        )
    return tuple(rows)


def explain(graph: BlockGraph, plan: Plan, index: int) -> StepExplanation:
    """What happens at a step, and why; PlanError where the plan has no such step."""
    if not 0 <= index < len(plan):
        raise PlanError(f"step {index} is not in this plan; it has steps 0 to {len(plan) - 1}")
    schedule = plan.upper_bound()
    step = schedule.steps[index]
    alive = live(graph, step, lossless=schedule.lossless)
    layers = [la.name for la in graph.layers if la.kind != "join"]
    reused = alive.read | {CFG_DELTA} if step.cfg_delta is not None else alive.read
    keep = kept(graph, plan)[index]
    stored = made(graph, step, alive, index).keys() & keep.keys()
    passed = alive.computed | alive.held | alive.added
    return StepExplanation(
        summaries(graph, plan)[index],
        tuple(name for name in layers if name in alive.computed),
        tuple(sorted(reused)),
        tuple(name for name in layers if name not in passed),
        tuple(sorted(stored)),
    )


def _folded(title: str, names: Iterable[str]) -> list[str]:
    """Names in rows by the block that they are in, as "unet.up_blocks.2: 3 resnets, 3 attentions"."""
    blocks: dict[str, Counter[str]] = {}
    for name in names:
        block, kind = _placed(name)
        blocks.setdefault(block, Counter())[kind] += 1
    if not blocks:
        return [f"  {title:<9} nothing"]
    rows: list[str] = []
    for block, kinds in blocks.items():
        listed = ", ".join(f"{n} {kind}" if n > 1 else kind for kind, n in kinds.items())
        rows.append(f"  {title if not rows else '':<9} {block + ':' if block else ''} {listed}")
    return rows


def _placed(name: str) -> tuple[str, str]:
    """The block that a name is in, and its kind there."""
    if name == CFG_DELTA:
        return "unet", "guidance difference"
    if name.startswith(LATENTS):
        return "unet", "latents"
    if name.startswith(CLEAN):
        return "unet", "clean latents"
    delta, plain = name.endswith("+"), name.removesuffix("+")
    kind_suffix = " (out - in)" if delta else ""
    if plain == PREDICTION:
        return "unet", f"whole prediction{kind_suffix}"
    parts = plain.split(".")
    for i, part in enumerate(parts):
        if part in ("down_blocks", "up_blocks"):
            rest = [p for p in parts[i + 2 :] if not p.isdecimal()]
            return ".".join(parts[: i + 2]), _kind(rest, parts[-1]) + kind_suffix
        if part == "mid_block":
            rest = [p for p in parts[i + 1 :] if not p.isdecimal()]
            return ".".join(parts[: i + 1]), _kind(rest, parts[-1]) + kind_suffix
    named = [p for p in parts[1:] if not p.isdecimal() and p != "nets"]
    return parts[0], ".".join(named) + kind_suffix


def _kind(rest: list[str], last: str) -> str:
    """The kind of a layer or attention inside a block, as "resnets" or "attn2 of attentions"."""
    if not rest:
        return last
    return rest[0] if len(rest) == 1 else f"{rest[-1]} of {rest[0]}"
