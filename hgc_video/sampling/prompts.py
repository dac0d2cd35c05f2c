"""What a pipeline makes of prompts, by its own methods: embeddings of one prompt or of prompts along the
frames, and what SDXL adds to the timestep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..options import GenerateOptions


@dataclass(frozen=True)
class Text:
    """prompt_embeds (2 n d), uncond first, (1 n d) without guidance, or (2f n d) and (f n d) where the
    prompt travels; `added`: SDXL's text_embeds (2 d) and time_ids (2 6), or (1 ...)."""

    prompt_embeds: Tensor
    added: Mapping[str, Tensor] | None = None


def encode_text(
    pipe: Any, options: GenerateOptions, num_frames: int, height: int, width: int, *, guided: bool
) -> Text:
    """The embeddings of a run of `num_frames` frames of height x width pixels."""
    prompt, encode = options.prompt, _encoder(pipe, options, guided)
    if isinstance(prompt, str):
        embeds, negative = encode(prompt)
        joined = embeds if negative is None else torch.cat([negative, embeds])
        return Text(joined, encode.added(height, width))
    embeds = travelling(prompt, num_frames, lambda words: encode(words)[0])
    negative = encode(prompt[0])[1]  # the first prompt's pooled text stands for all
    if negative is not None:
        embeds = torch.cat([negative.expand(num_frames, -1, -1), embeds])
    return Text(embeds, encode.added(height, width))


def num_tokens(pipe: Any, options: GenerateOptions | None) -> int:
    """Tokens of the embeddings: what the text encoder reads at once, or of long prompts that for each of
    their parts."""
    at_once = int(pipe.tokenizer.model_max_length)
    if options is None or options.prompt_syntax == "plain":
        return at_once
    with torch.no_grad():
        encode = _encoder(pipe, options, guided=options.branches == 2)
        return int(encode(options.prompts[0])[0].shape[1])


def _encoder(pipe: Any, options: GenerateOptions, guided: bool) -> Encoder:
    if options.prompt_syntax == "plain":
        return _Plain(pipe, options, guided)
    from .weighted_prompts import WeightedPrompts

    return WeightedPrompts(pipe, options, guided)


class Encoder:
    """What makes the embeddings of a run's prompts; called with one of them.

    `pooled` is what SDXL adds to the timestep, of the prompt that was encoded last, and of the negative one.
    """

    def __init__(self, pipe: Any, options: GenerateOptions, guided: bool) -> None:
        self.pipe, self.options, self.guided = pipe, options, guided
        self.pooled: tuple[Tensor, Tensor | None] | None = None

    def __call__(self, prompt: str) -> tuple[Tensor, Tensor | None]:
        """The embeddings (1 n d) of a prompt and of the negative one, None without guidance."""
        raise NotImplementedError

    def added(self, height: int, width: int) -> dict[str, Tensor] | None:
        """What is added to the timestep, after the prompt that comes last."""
        if self.pooled is None:
            return None
        pooled, negative = self.pooled
        size, pipe = (height, width), self.pipe
        ids = pipe._get_add_time_ids(
            size,
            (0, 0),
            size,
            dtype=pooled.dtype,
            text_encoder_projection_dim=int(pooled.shape[-1]),
        ).to(pooled.device)
        if not self.guided or negative is None:
            return {"text_embeds": pooled, "time_ids": ids}
        return {"text_embeds": torch.cat([negative, pooled]), "time_ids": torch.cat([ids, ids])}


class _Plain(Encoder):
    """The pipeline's own way."""

    def __call__(self, prompt: str) -> tuple[Tensor, Tensor | None]:
        embeds, negative, *pooled = self.pipe.encode_prompt(
            prompt, device=self.pipe.device, do_classifier_free_guidance=self.guided,
            negative_prompt=self.options.negative_prompt, **self._skipping(prompt), **self._count(),
        )  # fmt: skip
        if pooled:
            self.pooled = (pooled[0], pooled[1])
        return embeds, negative if self.guided else None

    def _skipping(self, prompt: str) -> dict[str, Any]:
        """What leaves out the last layers for the prompt, and as the pipeline has it not for the negative
        one. For SD1.5 its own way fails with transformers 5.6 on, whose text model has no text_model."""
        skip, pipe = self.options.clip_skip, self.pipe
        if skip is None:
            return {}
        if hasattr(pipe, "text_encoder_2"):
            return {"clip_skip": skip}
        told = pipe.tokenizer(
            prompt, padding="max_length", max_length=pipe.tokenizer.model_max_length,
            truncation=True, return_tensors="pt",
        )  # fmt: skip
        encoder = pipe.text_encoder
        seen = encoder(told.input_ids.to(pipe.device), output_hidden_states=True)
        norm = getattr(encoder, "text_model", encoder).final_layer_norm
        return {"prompt_embeds": norm(seen.hidden_states[-(skip + 1)])}

    def _count(self) -> dict[str, int]:
        """One clip, under the name that the pipeline gives it."""
        is_xl = hasattr(self.pipe, "text_encoder_2")
        return {"num_videos_per_prompt" if is_xl else "num_images_per_prompt": 1}


def travelling(
    prompts: Mapping[int, str], num_frames: int, encode: Callable[[str], Tensor]
) -> Tensor:
    """Text embeddings (f n d) for `{0: "...", 48: "..."}`: a frame between two given ones gets their
    linear mixture, a frame after the last one the last (as diffusers' FreeNoise does)."""
    told = sorted(frame for frame in prompts if frame < num_frames)
    known = {frame: encode(prompts[frame])[0] for frame in told}
    rows = []
    for frame in range(num_frames):
        before = max(f for f in told if f <= frame)
        after = min((f for f in told if f > frame), default=before)
        share = 0.0 if after == before else (frame - before) / (after - before)
        rows.append(torch.lerp(known[before], known[after], share))
    return torch.stack(rows)
