"""What is known of stock diffusers pipelines: which are supported, and what one is about to run.

Told by structure and names, never by version numbers. Does not know how anything is cached.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import AdapterError, nearest
from ..plan.clip_shape import ClipShape
from .probe import foreign_method

PIPELINES = (
    "AnimateDiffPipeline",
    "AnimateDiffControlNetPipeline",
    "AnimateDiffVideoToVideoPipeline",
    "AnimateDiffVideoToVideoControlNetPipeline",
    "AnimateDiffSparseControlNetPipeline",
    "AnimateDiffSDXLPipeline",
    "AnimateDiffPAGPipeline",
    "StableVideoDiffusionPipeline",
    "StableDiffusionPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLControlNetPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionControlNetImg2ImgPipeline",
    "StableDiffusionControlNetInpaintPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLControlNetImg2ImgPipeline",
    "StableDiffusionXLControlNetInpaintPipeline",
)
_SCHEDULER = ("scale_model_input", "step")


@dataclass(frozen=True)
class Batch:
    """What a step's latents say of a run: the shape of one clip, and how many clips there are. Images of
    one prompt count as the frames of one clip."""

    clip: ClipShape
    num_clips: int = 1


def probe_pipeline(pipe: Any) -> None:
    """AdapterError unless this is an instance of a supported pipeline with the parts it should have."""
    name = type(pipe).__name__
    if not set(PIPELINES) & {c.__name__ for c in type(pipe).__mro__}:
        hint = nearest(name, PIPELINES)
        raise AdapterError(f"{name} is not supported: {hint}")
    if (loop := foreign_method(type(pipe), "__call__", PIPELINES)) is not None:
        raise AdapterError(
            f"{name} has a loop of its own ({loop}.__call__), which a cache cannot follow; supported are the "
            f"loops of {', '.join(PIPELINES)}, and subclasses that call theirs"
        )
    parts = ("unet", "scheduler", "progress_bar")
    missing = [part for part in parts if getattr(pipe, part, None) is None]
    scheduler = getattr(pipe, "scheduler", None)
    missing += [f"scheduler.{m}" for m in _SCHEDULER if scheduler and not hasattr(scheduler, m)]
    if missing:
        raise AdapterError(f"{name} was expected to have {', '.join(missing)}; it has not")


def known_calls(pipe: Any) -> Iterator[Any]:
    """The `__call__`s of the supported pipelines that this is one of."""
    for cls in type(pipe).__mro__:
        if cls.__name__ in PIPELINES and "__call__" in vars(cls):
            yield vars(cls)["__call__"]


def guidance_branches(pipe: Any) -> int:
    """How many copies of the latents the pipeline's loop makes: the prompt's, the unconditional one where
    guidance is on, the perturbed one of PAG."""
    guided = bool(getattr(pipe, "do_classifier_free_guidance", False))
    perturbed = bool(getattr(pipe, "do_perturbed_attention_guidance", False))
    return 1 + guided + perturbed


def guidance_scale(pipe: Any) -> float | None:
    """The guidance scale of the call that runs, the largest of several frames; None where there is none."""
    scale = getattr(pipe, "guidance_scale", None)
    if scale is None or not getattr(pipe, "do_classifier_free_guidance", False):
        return None
    return float(scale.max() if hasattr(scale, "max") else scale)


def read_batch(pipe: Any, sample: Any, frames_axis: int, num_tokens: int) -> Batch:
    """What the scaled latents (branches·b …) of a step say; AdapterError where they do not fit."""
    branches = guidance_branches(pipe)
    copies, height, width = (int(sample.shape[i]) for i in (0, -2, -1))
    if copies % branches:
        raise AdapterError(
            f"{type(pipe).__name__} has {branches} guidance branches but {copies} rows of latents"
        )
    clips = copies // branches
    if sample.ndim != 5:
        return Batch(ClipShape(clips, height, width, num_tokens, branches))
    num_frames = int(sample.shape[frames_axis])
    return Batch(ClipShape(num_frames, height, width, num_tokens, branches), clips)


def num_evaluations(pipe: Any) -> int:
    """How often the loop that begins will run the models; strength and FreeInit shorten it."""
    evaluations = getattr(pipe, "num_timesteps", None) or getattr(pipe, "_num_timesteps", None)
    return int(evaluations or len(pipe.scheduler.timesteps))
