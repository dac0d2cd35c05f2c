"""Predicts the memory peak of a run: what one step and one decoding take, the weights, and what is kept.

Knows no tensor: the bytes of a step and of a decoding come from whoever has tried them on meta tensors
(trial_step.py) or keeps what was found before (kept_numbers.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..plan.clip_shape import ClipShape
from ..plan.graph import BlockGraph
from ..plan.memory.budget import Chunks
from ..plan.memory.placement import (
    DEVICE,
    HOST,
    RECOMPUTE,
    RESIDENT_WINDOWS,
    RunCost,
    carried_out,
    kept_nbytes,
    moved_nbytes,
    places,
    work_of,
)
from ..plan.memory.windows import Windows
from ..plan.presets import Preset
from ..plan.schedule import Plan


@dataclass(frozen=True)
class RunScale:
    """A run's measures: the shape of the whole clip, steps, pixels per latent, the frames that
    neighbouring windows share (None: a quarter), and those at which a scene begins."""

    clip: ClipShape
    num_inference_steps: int
    factor: int
    overlap: int | None = None
    cuts: tuple[int, ...] = ()

    def windows(self, context: int) -> Windows:
        """The clip in windows of this length."""
        overlap = context // 4 if self.overlap is None else min(self.overlap, context - 1)
        return Windows(self.clip.num_frames, context, overlap, self.cuts)


class Trials(Protocol):
    """Tells what models take at a run's size, in bytes."""

    @property
    def weights_nbytes(self) -> int:
        """Of the weights of UNet, ControlNets and VAE."""

    @property
    def latent_nbytes(self) -> int:
        """Of a frame's latents."""

    def graph(self, num_frames: int) -> BlockGraph:
        """The graph of so many frames."""

    def step_nbytes(self, plan: Plan, graph: BlockGraph, windows: Windows, chunks: Chunks) -> int:
        """At the peak of a plan's first step for all of these windows, of which what is kept for those
        that are not at work lies elsewhere."""

    def decode_nbytes(self, frames: int) -> int:
        """At the peak of decoding so many frames at once."""


class PeakModel:
    """The peak of a run of this scale with a preset, for every memory plan; `others_nbytes` are weights that
    lie beside UNet, ControlNets and VAE, as the text encoder's."""

    def __init__(self, trials: Trials, others_nbytes: int, scale: RunScale, preset: Preset) -> None:
        self._trials, self.scale, self.preset = trials, scale, preset
        self.weights = others_nbytes + trials.weights_nbytes
        self._plans: dict[int, Plan] = {}
        self._steps: dict[tuple[int, int, int, str], int] = {}

    def denoise(self, context: int, chunks: Chunks) -> tuple[int, int]:
        """Bytes at the peak of the denoising loop, weights included, and spilled to the host."""
        idle = chunks.idle if chunks.idle in self._places(context) else DEVICE
        step = self.weights + self._step_nbytes(context, chunks.frames, chunks.positions, idle)
        plan, graph = self._plan(context), self._graph(context)
        if idle == RECOMPUTE:
            return step, 0
        kept = kept_nbytes(plan, graph, self._windows(context))
        if idle == HOST:
            return step + RESIDENT_WINDOWS * moved_nbytes(plan, graph), kept
        return step + kept, 0

    def works(self, context: int) -> dict[str, RunCost]:
        """MACs and copies of the run for every place where idle windows' caches could live."""
        plan, graph = self._plan(context), self._graph(context)
        windows = self._windows(context)
        return {place: work_of(plan, graph, windows, place) for place in self._places(context)}

    def decode(self, num_frames: int) -> int:
        """Bytes at the peak of decoding so many frames at once, weights included."""
        whole = self.scale.clip.num_frames
        decoding = self._trials.decode_nbytes(min(num_frames, whole))
        return self.weights + decoding + whole * self._trials.latent_nbytes

    def _plan(self, context: int) -> Plan:
        if context not in self._plans:
            graph, count = self._graph(context), self.scale.num_inference_steps
            self._plans[context] = self.preset.schedule(graph, count)
        return self._plans[context]

    def _places(self, context: int) -> tuple[str, ...]:
        return places(self._plan(context), self._windows(context))

    def _windows(self, context: int) -> Windows:
        """The clip in windows of this length, as the plan has them."""
        return self.scale.windows(context).under(self._plan(context))

    def _graph(self, context: int) -> BlockGraph:
        return self._trials.graph(min(context, self.scale.clip.num_frames))

    def _step_nbytes(self, context: int, frames: int, positions: int, idle: str) -> int:
        """Bytes of the first step beside what is kept for other windows: two windows show all there is,
        and what is kept for them waits elsewhere."""
        at = (context, frames, positions, RECOMPUTE if idle == RECOMPUTE else DEVICE)
        if at not in self._steps:
            every = self._windows(context)
            few = Windows(
                min(every.num_frames, 2 * context - every.overlap), context, every.overlap,
                apart=every.apart,
            )  # fmt: skip
            plan = carried_out(self._plan(context), idle)
            chunks = Chunks(frames, positions)
            step = self._trials.step_nbytes(plan, self._graph(context), few, chunks)
            latents = 2 * (every.num_frames - few.num_frames) * self._trials.latent_nbytes
            self._steps[at] = step + latents
        return self._steps[at]
