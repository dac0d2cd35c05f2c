"""Predicts the memory peak of a run by doing one step of it on tensors without numbers.

The very code that will run (loop, engine, split) runs on the meta device, and the bytes of its tensors
are followed; so the prediction knows what the host keeps alive, not only what we do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..cache.engine import Engine
from ..cache.residual_inputs import residual_inputs
from ..cache.split import split
from ..measure.live_bytes import FusedAttention, LiveBytes, cpu_scratch
from ..models.dry_run import added_inputs, on_meta
from ..models.graph_builder import build_graph
from ..models.layout import controlnets
from ..models.probe import TEMPORAL_UNET, is_a
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
from .conditioning import ImageConditioning, TextConditioning
from .loop import ControlledUNet


@dataclass(frozen=True)
class Scale:
    """A run's measures: frames, latent height and width, tokens, branches, steps, pixels per latent,
    and the frames that neighbouring windows share (None: a quarter)."""

    num_frames: int
    height: int
    width: int
    num_tokens: int
    branches: int
    num_inference_steps: int
    factor: int
    overlap: int | None = None

    @property
    def num_positions(self) -> int:
        """Rows of the outermost motion module's transformer."""
        return self.height * self.width * self.branches

    def windows(self, context: int) -> Windows:
        """The clip in windows of this length."""
        overlap = context // 4 if self.overlap is None else min(self.overlap, context - 1)
        return Windows(self.num_frames, context, overlap)


class PeakModel:
    """Copies of the models without weights, on which runs are tried."""

    def __init__(
        self, unet: Any, controlnet: Any, vae: Any, others_nbytes: int, scale: Scale, preset: Preset,
        dtype: torch.dtype, device: str = "cuda",
    ) -> None:  # fmt: skip
        self._scratch = cpu_scratch if device == "cpu" else None
        self.scale, self.preset, self.dtype = scale, preset, dtype
        self.unet, self.vae = on_meta(unet, dtype), on_meta(vae, dtype)
        self.controlnet = None if controlnet is None else on_meta(controlnet, dtype)
        models = [self.unet, self.vae, self.controlnet]
        self.weights = others_nbytes + sum(_weights(m) for m in models if m is not None)
        self._graphs: dict[int, BlockGraph] = {}
        self._plans: dict[int, Plan] = {}
        self._steps: dict[tuple[int, int, int, str], int] = {}

    def denoise(self, context: int, chunks: Chunks) -> tuple[int, int]:
        """Bytes at the peak of the denoising loop, weights included, and spilled to the host."""
        idle = chunks.idle if chunks.idle in self._places(context) else DEVICE
        step = self.weights + self._step_nbytes(context, chunks.frames, chunks.positions, idle)
        plan, graph = self._plan(context), self._graph(context)
        if idle == RECOMPUTE:
            return step, 0
        kept = kept_nbytes(plan, graph, self.scale.windows(context))
        if idle == HOST:
            return step + RESIDENT_WINDOWS * moved_nbytes(plan, graph), kept
        return step + kept, 0

    def works(self, context: int) -> dict[str, RunCost]:
        """MACs and copies of the run for every place where idle windows' caches could live."""
        plan, graph = self._plan(context), self._graph(context)
        windows = self.scale.windows(context)
        return {place: work_of(plan, graph, windows, place) for place in self._places(context)}

    def decode(self, num_frames: int) -> int:
        """Bytes at the peak of decoding so many frames at once, weights included."""
        return self.weights + self._decode_nbytes(min(num_frames, self.scale.num_frames))

    def _plan(self, context: int) -> Plan:
        if context not in self._plans:
            graph, count = self._graph(context), self.scale.num_inference_steps
            self._plans[context] = self.preset.schedule(graph, count)
        return self._plans[context]

    def _places(self, context: int) -> tuple[str, ...]:
        return places(self._plan(context), self.scale.windows(context))

    def _graph(self, context: int) -> BlockGraph:
        if context not in self._graphs:
            scale = self.scale
            self._graphs[context] = build_graph(
                self.unet, self.controlnet, num_frames=min(context, scale.num_frames),
                height=scale.height, width=scale.width, num_tokens=scale.num_tokens,
                branches=scale.branches, dtype_nbytes=self.dtype.itemsize,
            )  # fmt: skip
        return self._graphs[context]

    @torch.no_grad()
    def _step_nbytes(self, context: int, frames: int, positions: int, idle: str) -> int:
        """Bytes of the first step beside what is kept for other windows: two windows show all there is,
        and what is kept for them waits elsewhere."""
        at = (context, frames, positions, RECOMPUTE if idle == RECOMPUTE else DEVICE)
        if at in self._steps:
            return self._steps[at]
        scale, graph = self.scale, self._graph(context)
        every = scale.windows(context)
        few = Windows(min(every.num_frames, 2 * context - every.overlap), context, every.overlap)
        plan = carried_out(self._plan(context), idle)
        engine = None if plan.is_stock else Engine(plan, graph, spill=True, there=0)
        models = {"unet": self.unet, "controlnet": self.controlnet}
        chunks = Chunks(frames, positions)
        with residual_inputs(self.unet), split(chunks, graph=graph, **models):
            try:
                if engine is not None:
                    engine.enable(**models)
                with FusedAttention(), LiveBytes(self._scratch) as live:
                    self._step(few, engine)
            finally:
                if engine is not None:
                    engine.disable()
        rest = scale.num_frames - few.num_frames
        latents = 2 * rest * self._channels() * scale.height * scale.width * self.dtype.itemsize
        self._steps[at] = live.peak + latents
        return live.peak + latents

    def _step(self, windows: Windows, engine: Engine | None) -> None:
        scale, f = self.scale, windows.num_frames
        size = (f, 3, scale.height * scale.factor, scale.width * scale.factor)
        clips = len(controlnets(self.controlnet))
        cond = tuple(torch.empty(size, dtype=torch.uint8, device="meta") for _ in range(clips))
        guidance = self._from_image(f, cond) if self._temporal else self._from_text(f, cond)
        models = ControlledUNet(
            self.unet, self.controlnet, guidance, scale.num_inference_steps, windows=windows,
            listeners=[engine] if engine else [],
        )  # fmt: skip
        latents = self._latents(f)
        models(latents, torch.empty((), dtype=torch.long, device="meta"), 0)

    def _from_text(self, f: int, cond: tuple[torch.Tensor, ...]) -> TextConditioning:
        scale = self.scale
        text = self._empty(scale.branches * f, scale.num_tokens, _width(self.unet))
        added = added_inputs(self.unet, scale.branches).get("added_cond_kwargs")
        pull = 2.0 if scale.branches == 2 else 1.0
        return TextConditioning(
            text, cond, pull, (1.0,) * len(cond), added=added and self._typed(added)
        )

    def _from_image(self, f: int, cond: tuple[torch.Tensor, ...]) -> ImageConditioning:
        branches = self.scale.branches
        embeds = self._empty(branches, self.scale.num_tokens, _width(self.unet))
        image = self._latents(1).expand(branches, -1, -1, -1, -1)
        ids, pull = self._empty(branches, 3), self._empty(1, f, 1, 1, 1)
        return ImageConditioning(embeds, image, ids, cond, pull, (1.0,) * len(cond))

    def _latents(self, f: int) -> torch.Tensor:
        frames = (self._channels(), f) if not self._temporal else (f, self._channels())
        return self._empty(1, *frames, self.scale.height, self.scale.width)

    @torch.no_grad()
    def _decode_nbytes(self, frames: int) -> int:
        scale = self.scale
        with FusedAttention(), LiveBytes(self._scratch) as live:
            latents = self._empty(
                frames, self.vae.config.latent_channels, scale.height, scale.width
            )
            told = {"num_frames": frames} if self._temporal else {}
            out = self.vae.decode(latents, **told).sample
            out.float()
        whole = scale.num_frames * self._channels() * scale.height * scale.width
        return live.peak + whole * self.dtype.itemsize

    def _typed(self, added: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor.to(self.dtype) for name, tensor in added.items()}

    def _channels(self) -> int:
        return int(self.unet.config.out_channels)  # an image's may follow them on the way in

    @property
    def _temporal(self) -> bool:
        return is_a(self.unet, TEMPORAL_UNET)

    def _empty(self, *size: int) -> torch.Tensor:
        return torch.empty(size, dtype=self.dtype, device="meta")


def _weights(model: nn.Module) -> int:
    tensors = [*model.parameters(), *model.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors)


def _width(unet: Any) -> int:
    width = unet.config.cross_attention_dim
    return width if isinstance(width, int) else int(width[0])
