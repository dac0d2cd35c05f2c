"""What a schedule costs: MACs by part and step, and the bytes that must be kept, before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from .graph import Attention, BlockGraph, Layer
from .liveness import CFG_DELTA, LATENTS, Live, kept, live, made, reads
from .schedule import Anchors, Plan, Schedule, StepPlan

PARTS = ("unet", "controlnet")


@dataclass(frozen=True)
class Cost:
    """By part, for every step: MACs, bytes kept when it ends, and of them those that it made; bytes that
    it reads of what was kept before it. `text` are the MACs by part of projecting the text where that is
    done once, at the first step that runs each attention; 0 where every step projects it."""

    macs: tuple[dict[str, int], ...]
    kept: tuple[dict[str, int], ...]
    made: tuple[dict[str, int], ...]
    read: tuple[dict[str, int], ...]
    text: dict[str, int] = field(default_factory=lambda: by_part({}))

    @property
    def nbytes(self) -> tuple[int, ...]:
        """Bytes kept after every step."""
        return tuple(sum(step.values()) for step in self.kept)

    def by_part(self) -> dict[str, int]:
        """MACs of the whole run by part."""
        return {part: sum(step[part] for step in self.macs) for part in PARTS}

    @property
    def total(self) -> int:
        """MACs of the whole run."""
        return sum(self.by_part().values())

    @property
    def peak_nbytes(self) -> int:
        """The most bytes kept at once."""
        return max(self.nbytes, default=0)


def full_cost(graph: BlockGraph, num_inference_steps: int) -> Cost:
    """What the stock models compute: every layer, every branch, every step."""
    step = {
        part: sum(la.macs for la in graph.layers if la.part == part) * graph.branches
        for part in PARTS
    }
    nothing = (by_part({}),) * num_inference_steps
    return Cost((step,) * num_inference_steps, nothing, nothing, nothing)


def cost(graph: BlockGraph, plan: Plan) -> Cost:
    """The MACs that carrying out `plan` executes and the bytes that its store holds; of an adaptive plan,
    those of the run that costs most."""
    if plan.is_stock:
        return full_cost(graph, len(plan))
    schedule = plan.upper_bound()
    macs, held, new, back = [], [], [], []
    projected: set[str] = set()
    text: dict[str, int] = {}
    stored: dict[str, list[int]] = {}
    for index, (step, names) in enumerate(zip(schedule.steps, kept(graph, schedule), strict=True)):
        alive = live(graph, step, lossless=schedule.lossless)
        spent = site_macs(graph, step, alive, schedule, projected)
        if schedule.lossless:
            text |= {
                name: _text_macs(graph, name) * step.branches for name in alive.attended - projected
            }
        projected |= alive.attended
        macs.append(by_part(spent))
        back.append(_stored_nbytes(graph, stored, reads(step, alive)))
        here = made(graph, step, alive, index)
        for name, branches in here.items():
            stored.setdefault(name, []).append(branches)
        held.append(_stored_nbytes(graph, stored, names))
        new.append(_stored_nbytes(graph, stored, {name: 1 for name in names if name in here}))
    return Cost(tuple(macs), tuple(held), tuple(new), tuple(back), by_part(text))


def by_part(spent: Mapping[str, int]) -> dict[str, int]:
    """MACs or bytes, given by names in the graph or in the store, summed by part."""
    totals = dict.fromkeys(PARTS, 0)
    for name, amount in spent.items():
        totals[name.partition(".")[0].removesuffix("+")] += amount
    return totals


def site_macs(
    graph: BlockGraph, step: StepPlan, alive: Live, schedule: Schedule, projected: Collection[str]
) -> dict[str, int]:
    """MACs of everything that runs at a step: layers without their attentions, and attentions.

    `projected` names the attentions that have run before, whose text need not be projected again.
    """
    spent: dict[str, int] = {}
    for name in alive.computed:
        layer = graph.by_name[name]
        own = layer.macs - sum(a.macs for a in layer.attentions)
        # Both branches see the same control clip, so one of them is encoded.
        shared = layer.kind == "hint" and schedule.lossless
        spent[name] = own if shared else own * step.branches
        for attention in layer.attentions:
            if attention.name in alive.attended:
                share = _share(layer, attention, schedule.anchors, graph.num_frames)
                text = attention.text_macs
                if schedule.lossless:
                    first = attention.name not in projected
                    text = _text_macs(graph, attention.name) if first else 0
                elif share < 1:
                    text = round(text * share)
                own = round((attention.macs - attention.text_macs) * share)
                spent[attention.name] = (own + text) * step.branches
    return spent


def _text_macs(graph: BlockGraph, attention: str) -> int:
    """MACs of projecting the text of one branch once for all frames."""
    return graph.attentions[attention].text_macs // graph.num_frames


def _share(layer: Layer, attention: Attention, anchors: Anchors | None, num_frames: int) -> float:
    """The share of the frames for which an attention is computed."""
    if anchors is None or not attention.per_frame or layer.part != "unet":
        return 1.0
    return len(anchors.frames(num_frames)) / num_frames


def kept_for_any(graph: BlockGraph, names: Mapping[str, int]) -> dict[str, int]:
    """Bytes by part of the last so many values of each name, made for all branches."""
    stored = {name: [graph.branches] * depth for name, depth in names.items()}
    return _stored_nbytes(graph, stored, names)


def _stored_nbytes(
    graph: BlockGraph, stored: Mapping[str, list[int]], names: Mapping[str, int]
) -> dict[str, int]:
    """Bytes by part of the last so many values of each name; `stored` tells their branches."""
    return by_part(
        {name: _nbytes(graph, name, stored.get(name, [])[-n:]) for name, n in names.items()}
    )


def _nbytes(graph: BlockGraph, name: str, branches: list[int]) -> int:
    if name == CFG_DELTA or name.startswith(LATENTS):  # as large as the prediction
        return graph.by_name[graph.output].nbytes * len(branches)
    name = name.removesuffix("+")
    if name in graph.attentions:
        return graph.attentions[name].nbytes * sum(branches)
    layer = graph.by_name.get(name, graph.layers[-1])  # the whole UNet's is its last layer's
    # Both branches see the same clip, so that its encoded hint is kept for one.
    return layer.nbytes * (len(branches) if layer.kind == "hint" else sum(branches))
