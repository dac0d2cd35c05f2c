"""One step of a run, or one decoding, on meta tensors: the bytes that it takes at its peak.

The very code that will run (loop, engine, split) runs on the meta device, and the bytes of its tensors
are followed; so what is found covers what diffusers keeps alive, not only what we do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..cache.engine import Engine
from ..cache.residual_inputs import residual_inputs
from ..cache.split import split
from ..measure.live_bytes import FusedAttention, LiveBytes, cpu_scratch
from ..measure.meta_results import MetaResults
from ..models.dry_run import added_inputs, on_meta
from ..models.layout import controlnets
from ..models.loaded_graph import loaded_graph
from ..models.probe import TEMPORAL_UNET, is_a
from ..plan.graph import BlockGraph
from ..plan.memory.budget import Chunks
from ..plan.memory.windows import Windows
from ..plan.schedule import Plan
from .conditioning import ImageConditioning, TextConditioning
from .loop import ControlledUNet
from .predict_peak import RunScale


class TrialRuns:
    """Copies of the models without weights, on which steps are tried."""

    def __init__(
        self, unet: Any, controlnet: Any, vae: Any, scale: RunScale, dtype: torch.dtype,
        device: str = "cuda",
    ) -> None:  # fmt: skip
        self._scratch = cpu_scratch if device == "cpu" else None
        self.scale, self.dtype = scale, dtype
        self.unet, self.vae = on_meta(unet, dtype), on_meta(vae, dtype)
        self.controlnet = None if controlnet is None else on_meta(controlnet, dtype)
        self._graphs: dict[int, BlockGraph] = {}
        self._results = MetaResults()

    @property
    def weights_nbytes(self) -> int:
        """Bytes of the models' weights."""
        models = (self.unet, self.vae, self.controlnet)
        return sum(_weights(model) for model in models if model is not None)

    @property
    def latent_nbytes(self) -> int:
        """Bytes of a frame's latents."""
        return (
            self._channels() * self.scale.clip.height * self.scale.clip.width * self.dtype.itemsize
        )

    def graph(self, num_frames: int) -> BlockGraph:
        """The graph of so many frames."""
        if num_frames not in self._graphs:
            shape = replace(self.scale.clip, num_frames=num_frames)
            self._graphs[num_frames] = loaded_graph(
                self.unet, self.controlnet, shape, dtype_nbytes=self.dtype.itemsize
            )
        return self._graphs[num_frames]

    @torch.no_grad()
    def step_nbytes(self, plan: Plan, graph: BlockGraph, windows: Windows, chunks: Chunks) -> int:
        """Bytes at the peak of a plan's first step for all of these windows, of which what is kept for
        those that are not at work lies elsewhere."""
        engine = None if plan.is_stock else Engine(plan, graph, spill=True, there=0)
        models = {"unet": self.unet, "controlnet": self.controlnet}
        with residual_inputs(self.unet), split(chunks, graph=graph, **models):
            try:
                if engine is not None:
                    engine.enable(**models)
                with FusedAttention(), self._results, LiveBytes(self._scratch) as live:
                    self._step(windows, engine)
            finally:
                if engine is not None:
                    engine.disable()
        return live.peak

    def _step(self, windows: Windows, engine: Engine | None) -> None:
        scale, f = self.scale, windows.num_frames
        size = (f, 3, scale.clip.height * scale.factor, scale.clip.width * scale.factor)
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
        text = self._empty(scale.clip.branches * f, scale.clip.num_tokens, _width(self.unet))
        added = added_inputs(self.unet, scale.clip.branches).get("added_cond_kwargs", {})
        pictures = tuple(picture.to(self.dtype) for picture in added.pop("image_embeds", ()))
        pull = 2.0 if scale.clip.branches == 2 else 1.0
        return TextConditioning(
            text, cond, pull, (1.0,) * len(cond), added=self._typed(added) if added else None,
            image_embeds=pictures,
        )  # fmt: skip

    def _from_image(self, f: int, cond: tuple[torch.Tensor, ...]) -> ImageConditioning:
        branches = self.scale.clip.branches
        embeds = self._empty(branches, self.scale.clip.num_tokens, _width(self.unet))
        image = self._latents(1).expand(branches, -1, -1, -1, -1)
        ids, pull = self._empty(branches, 3), self._empty(1, f, 1, 1, 1)
        return ImageConditioning(embeds, image, ids, cond, pull, (1.0,) * len(cond))

    def _latents(self, f: int) -> torch.Tensor:
        frames = (self._channels(), f) if not self._temporal else (f, self._channels())
        return self._empty(1, *frames, self.scale.clip.height, self.scale.clip.width)

    @torch.no_grad()
    def decode_nbytes(self, frames: int) -> int:
        """Bytes at the peak of decoding so many frames at once."""
        scale = self.scale
        with FusedAttention(), self._results, LiveBytes(self._scratch) as live:
            latents = self._empty(
                frames, self.vae.config.latent_channels, scale.clip.height, scale.clip.width
            )
            told = {"num_frames": frames} if self._temporal else {}
            out = self.vae.decode(latents, **told).sample
            out.float()
        return live.peak

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
