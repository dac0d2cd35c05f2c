"""The one list of options of `generate`: names, types, bounds, defaults and descriptions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from ..errors import InputError, PromptError, nearest
from .base import Options
from .image_motion import ImageMotion
from .prompts import check_letters
from .values import (
    MOST_STEPS,
    PROMPT_SYNTAXES,
    SCHEDULERS,
    Number,
    Place,
    Whole,
    dtype_name,
    span_of,
)


class GenerateFields(Options):
    """Every option of `generate`: type, bounds, default and description; each is checked by itself."""

    control_video: Any = Field(
        None, description="the control clip: a path, frames (f H W 3) uint8 or a list of images"
    )
    prompt: Any = Field(
        "", description="what the clip shows; or prompts by the frame from which they hold"
    )
    control: Any = Field(
        "pose", description="the kind of control_video, or several control clips by kind"
    )
    video: Any = Field(
        None, description="a clip to restyle (video to video), with a control clip or without"
    )
    strength: Number = Field(
        0.6, gt=0, le=1, description="of video: the share of the steps that it goes through; more departs "
        "further from it",
    )  # fmt: skip
    image: Any = Field(
        None, description="the first frame, of models that begin with an image (svd)"
    )
    model: str = Field(
        "puppet",
        description="puppet, a model of hgc-video models, a folder, or a hub repository, as "
        "owner/name or owner/name@COMMIT",
    )
    preset: str = Field(
        "balanced", description="off, lossless, quality, balanced, fast, turbo; quality=45dB, which computes "
        "what that takes; or a policy such as deepcache:interval=3",
    )  # fmt: skip
    net: bool | None = Field(
        None, description="compute what the preset reuses while measured forecast errors are beyond a bound; "
        "default: for presets where the sampler adds noise (euler-a, lcm)",
    )  # fmt: skip
    base: Place = Field(
        None, description="checkpoint in place of the model's own: a .safetensors file of Stable Diffusion "
        "1.5 or XL, a folder, or a repository",
    )  # fmt: skip
    base_config: Place = Field(
        None, description="folder of configurations of a base file that is of neither"
    )
    motion_adapter: Place = Field(
        None,
        description="motion adapter in place of the model's own: a file, a folder, or a repository",
    )
    vae: Place = Field(
        None, description="VAE in place of the model's own: a file, a folder, or a repository"
    )
    controlnet: Mapping[str, Any] | None = Field(
        None, description="ControlNets in place of the model's own, by the kind of control"
    )
    lora: Any = Field(
        None, description="LoRA files with their scales, motion LoRAs too; added to the weights"
    )
    ip_adapter: Any = Field(None, description="picture that the clip is to look like (IP-Adapter)")
    ip_adapter_scale: Number = Field(
        0.6, ge=0, le=2, description="strength of that picture; 0 leaves it without effect"
    )
    ip_adapter_model: Place = Field(
        None, description="IP-Adapter file, its image_encoder/ beside it; default: h94/IP-Adapter"
    )
    scheduler: str | None = Field(
        None, description="ddim, dpm++, euler, euler-a, unipc or lcm; default: the model's own"
    )
    clip_skip: Whole | None = Field(
        None, ge=1, le=11, description="layers of the text encoder that are left out at its end (web "
        "interfaces count one more)",
    )  # fmt: skip
    prompt_syntax: str = Field(
        "plain", description="plain, or compel: weights as in (red)1.3 and prompts of any length"
    )
    negative_prompt: str | None = Field(None, description="what the clip avoids")
    num_inference_steps: Whole | None = Field(
        None, ge=1, le=MOST_STEPS, description="denoising steps; default: the model's own"
    )
    guidance_scale: Number | None = Field(
        None, ge=0, description="strength of the prompt, 1 or less is off; default: the model's own"
    )
    conditioning_scale: Any = Field(
        1.0, description="strength of the control, or of several by kind (pose=1,depth=0.5)"
    )
    control_guidance_start: Number = Field(
        0.0, ge=0, le=1, description="share of the run from which the ControlNet runs"
    )
    control_guidance_end: Number = Field(
        1.0, ge=0, le=1, description="share of the run up to which the ControlNet runs"
    )
    num_frames: Whole | None = Field(
        None, ge=1, description="frames to make; default: as the control clip, in windows where the model "
        "holds fewer at once",
    )  # fmt: skip
    frames: str | None = Field(
        None, description="which frames of the control clip, as 100:260, 100: or :260; default: all"
    )
    every: Whole | None = Field(
        None,
        ge=1,
        description="take every N-th frame of the control clip; default: so that about 12 a second are left",
    )
    loop: bool = Field(False, description="repeat a control clip that has fewer than num_frames")
    scenes: bool = Field(
        False, description="find scene cuts, and have no window reach across one (extra: scenes)"
    )
    scenes_of: str | os.PathLike[str] | None = Field(
        None,
        description="the film that a ready control clip was made of, to find its scene cuts in",
    )
    context_length: Whole | None = Field(
        None, ge=1, description="frames of a window of a long clip; default: what the model holds"
    )
    context_overlap: Whole | None = Field(
        None, ge=0, description="frames that windows share; default: a quarter of a window"
    )
    height: Whole | None = Field(None, ge=1, description="pixels; default: as the control clip")
    width: Whole | None = Field(None, ge=1, description="pixels; default: as the control clip")
    fps: Number | None = Field(
        None, gt=0, description="frames per second; default: as the control clip"
    )
    source_fps: Number | None = Field(
        None, gt=0, description="rate of a control clip that carries none, as a folder of images"
    )
    invert_depth: bool = Field(False, description="the depth clip is bright where it is far")
    motion: Mapping[str, Any] | None = Field(
        None,
        description="of models with an image: motion_bucket_id=127,noise_aug_strength=0.02 ...",
    )
    seed: Whole | None = Field(
        0,
        ge=0,
        lt=2**63,
        description="the same seed gives the same clip; none draws one; several (1,2,3) "
        "make a clip each",
    )
    extract: Any = Field(False, description="the clip is a raw video: take the control from it")
    fidelity: Any = Field(
        False,
        description="extract the controls from the finished clip again and report how near they are",
    )
    force: bool = Field(
        False, description="go on with a control clip that cannot be what it is given as"
    )
    memory: str | int | None = Field(
        None, description="memory budget with the weights, as 8GiB; default: what is free"
    )
    out: str | os.PathLike[str] | None = Field(
        None, description="clip to write: .mp4, .webm, .gif, .webp, or a folder of PNGs"
    )
    audio: Any = Field(
        True, description="sound of the clip: the control clip's own, another file's, or none"
    )
    codec: str | None = Field(
        None,
        description="h264, hevc or av1 in .mp4, vp9 or av1 in .webm; default: the first of them",
    )
    crf: Whole | None = Field(
        None,
        ge=0,
        le=63,
        description="quality of .mp4 and .webm, less is better; default: the codec's",
    )
    pix_fmt: str | None = Field(
        None, description="pixel format of .mp4 and .webm, as yuv444p; default: yuv420p"
    )
    metadata: bool = Field(
        True, description="embed the options, model hashes and versions in the clip"
    )
    device: str | None = Field(
        None, description="cpu, cuda, cuda:1, mps; default: cuda, else mps, where there is one"
    )
    devices: Whole = Field(
        1, ge=1, le=64, description="GPUs of this machine that make one clip of several windows together; of "
        "device cpu, processes",
    )  # fmt: skip
    dtype: Any = Field(
        None, description="float32, float16 or bfloat16; default: float16 on cuda, else float32"
    )
    offline: bool = Field(False, description="download nothing: use what is on this machine")
    auto_calibrate: bool = Field(
        False,
        description="at a model's first use, measure it and search its own schedule for the preset",
    )
    calibration_dir: str | os.PathLike[str] | None = Field(
        None, description="where auto_calibrate keeps what it finds; default: $HGC_VIDEO_HOME, or "
        "hgc_video in $XDG_CACHE_HOME or ~/.cache",
    )  # fmt: skip

    work: str | os.PathLike[str] | None = Field(
        None, description="folder that keeps the run, so that it can go on; default: beside the clip, where "
        "it takes more than two minutes",
    )  # fmt: skip
    checkpoint_every_s: Number = Field(
        60.0,
        ge=0,
        description="the most seconds between two checkpoints, unless a step takes longer",
    )

    @field_validator("negative_prompt", mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        if not isinstance(value, str | None):
            raise PromptError(f"negative_prompt={value!r} is no text; give one text")
        check_letters(value or "", "negative_prompt")
        return value

    @field_validator("extract", "fidelity", mode="after")
    @classmethod
    def _names_preprocessors(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, bool | str | Mapping):
            raise InputError(
                f"{info.field_name}={value!r} is not possible; give True, False, names of preprocessors "
                'such as "pose:hands=true", or {"pose": True}'
            )
        return value

    @field_validator("dtype", mode="after")
    @classmethod
    def _is_dtype(cls, value: Any) -> str | None:
        return dtype_name(value)

    @field_validator("audio", mode="after")
    @classmethod
    def _is_audio(cls, value: Any) -> Any:
        if not isinstance(value, bool | str | os.PathLike):
            raise InputError(f"audio={value!r:.80} is not possible; give a file, True or False")
        return value

    @field_validator("frames", mode="after")
    @classmethod
    def _is_span(cls, value: str | None) -> str | None:
        if value is not None:
            span_of(value)
        return value

    @field_validator("motion", mode="after")
    @classmethod
    def _is_motion(cls, value: Any) -> Any:
        if value is not None:
            ImageMotion(**value)
        return value

    @field_validator("scheduler", "prompt_syntax", mode="after")
    @classmethod
    def _is_known(cls, value: str | None, info: ValidationInfo) -> str | None:
        known = SCHEDULERS if info.field_name == "scheduler" else PROMPT_SYNTAXES
        if value is not None and value not in known:
            raise InputError(f'unknown {info.field_name} "{value}": {nearest(value, known)}')
        return value
