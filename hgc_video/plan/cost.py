"""What a schedule costs: MACs by part and step, and which tensors must be kept, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from .graph import BlockGraph, Layer
from .schedule import Schedule, StepPlan

PARTS = ("unet", "controlnet")


@dataclass(frozen=True)
class Cost:
    """MACs by part for every step, and the bytes kept after every step."""

    macs: tuple[dict[str, int], ...]
    nbytes: tuple[int, ...]

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
    """What the host itself computes: every layer, every branch, every step."""
    step = {
        part: sum(la.macs for la in graph.layers if la.part == part) * graph.branches
        for part in PARTS
    }
    return Cost((step,) * num_inference_steps, (0,) * num_inference_steps)


def cost(graph: BlockGraph, schedule: Schedule) -> Cost:
    """The MACs that carrying out `schedule` executes and the bytes that its store holds."""
    keep = kept(graph, schedule)
    macs, nbytes = [], []
    for i, step in enumerate(schedule.steps):
        alive = graph.alive(step.reuse)
        spent = dict.fromkeys(PARTS, 0)
        for layer in graph.layers:
            if layer.name in alive:
                spent[layer.part] += layer_macs(
                    graph, layer, step, schedule.share_text, first=i == 0
                )
        macs.append(spent)
        nbytes.append(sum(_kept_nbytes(graph.by_name[n], step.branches) for n in keep[i]))
    return Cost(tuple(macs), tuple(nbytes))


def kept(graph: BlockGraph, schedule: Schedule) -> tuple[frozenset[str], ...]:
    """For every step the outputs that are in the store when it ends, because a later step reads them."""
    held: list[frozenset[str]] = []
    later: frozenset[str] = frozenset()
    for step in reversed(schedule.steps):
        held.append(later)
        later = (later - graph.alive(step.reuse)) | graph.read(step.reuse)
    return tuple(reversed(held))


def _kept_nbytes(layer: Layer, branches: int) -> int:
    return layer.nbytes if layer.kind == "hint" else layer.nbytes * branches


def layer_macs(
    graph: BlockGraph, layer: Layer, step: StepPlan, share_text: bool, *, first: bool
) -> int:
    """MACs of computing one layer at one step."""
    if layer.kind == "hint" and share_text:
        return layer.macs  # both branches see the same control clip, so one of them is encoded
    if layer.part == "unet" and step.cross == "fused":
        return (layer.macs - layer.cross_macs) * step.branches
    if not share_text or not layer.text_macs:
        return layer.macs * step.branches
    once = layer.text_macs // graph.num_frames if first else 0
    return (layer.macs - layer.text_macs + once) * step.branches
