"""The one list of options of `generate`: names, types, bounds, defaults and descriptions.

`generate`'s signature and the report are tested equal to it, the command line is made from it. Knows nothing
about models that are loaded, nor how an option is carried out.
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from .errors import HGCVideoError, InputError, PromptError, nearest, one_line

CONTROL_KINDS = ("pose", "depth", "canny", "softedge", "lineart")
DTYPES = ("float32", "float16", "bfloat16")
SCHEDULERS = ("ddim", "dpm++", "euler", "euler-a", "unipc", "lcm")
PROMPT_SYNTAXES = ("plain", "compel")
# The options that decide what is loaded, beside the kinds of control and whether there is an ip_adapter.
LOADING = (
    "model", "device", "dtype", "offline", "base", "base_config", "motion_adapter", "vae", "controlnet",
    "lora", "ip_adapter_model",
)  # fmt: skip
_Place: TypeAlias = str | os.PathLike[str] | None


def dtype_name(dtype: Any) -> str | None:
    """The name of a dtype, torch's own or its name; None as it is. InputError names the nearest."""
    name = str(dtype).removeprefix("torch.")
    if dtype is not None and name not in DTYPES:
        raise InputError(f'unknown dtype "{name}": {nearest(name, DTYPES)}')
    return None if dtype is None else name


def _whole(value: Any) -> Any:
    """Whole numbers of any library as Python's own, so that a report can hold them; text is none."""
    if value is None:
        return value
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise PydanticCustomError("whole_number", "a whole number")
    return int(value)


def _number(value: Any) -> Any:
    if value is None:
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise PydanticCustomError("number", "a number")
    if not math.isfinite(value):
        raise PydanticCustomError("number", "a finite number")
    return float(value)


Whole: TypeAlias = Annotated[int, BeforeValidator(_whole)]
Number: TypeAlias = Annotated[float, BeforeValidator(_number)]


class _Options(BaseModel):
    """A set of options whose faults are one line of ours."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            cause = error.errors()[0].get("ctx", {}).get("error")
            if isinstance(cause, HGCVideoError):
                raise cause from None
            told = one_line(error, self._owner(), type(self).model_fields)
            raise InputError(told.removeprefix("generate: ")) from None

    @classmethod
    def _owner(cls) -> str:
        return "generate"


class ImageMotion(_Options):
    """How a clip moves that begins with an image, as Stable Video Diffusion is conditioned."""

    fps: Whole = Field(7, ge=1, le=60, description="frames per second, as the model is conditioned")
    motion_bucket_id: Whole = Field(127, ge=0, le=255, description="more is livelier")
    noise_aug_strength: Number = Field(
        0.02, ge=0, description="noise on the image; more leaves it sooner"
    )
    min_guidance_scale: Number = Field(
        1.0, ge=0, description="guidance at the first frame, growing to guidance_scale at the last"
    )

    @classmethod
    def _owner(cls) -> str:
        return "motion"


class GenerateOptions(_Options):
    """Every option of `generate`, checked.

    Raises:
        InputError: an unknown option or a value that is not possible; the message says what is.
        PromptError: an empty prompt, or one that is no text.
    """

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
        "puppet", description="puppet, a model of hgc-video models, a folder, or a hub repository"
    )
    preset: str = Field(
        "balanced", description="off, lossless, quality, balanced, fast, turbo, or a policy such as "
        "deepcache:interval=3",
    )  # fmt: skip
    base: _Place = Field(
        None, description="checkpoint in place of the model's own: a .safetensors file of Stable Diffusion "
        "1.5 or XL, a folder, or a repository",
    )  # fmt: skip
    base_config: _Place = Field(
        None, description="folder of configurations of a base file that is of neither"
    )
    motion_adapter: _Place = Field(
        None,
        description="motion adapter in place of the model's own: a file, a folder, or a repository",
    )
    vae: _Place = Field(
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
    ip_adapter_model: _Place = Field(
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
        None, ge=1, le=1000, description="denoising steps; default: the model's own"
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
            _span(value)
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

    @model_validator(mode="after")
    def _check(self) -> GenerateOptions:
        self._check_controls()
        self._check_parts()
        self._check_scales()
        start, end = self.control_guidance_start, self.control_guidance_end
        if start >= end:
            raise InputError(
                f"control_guidance_start..control_guidance_end={start}..{end} is not possible; give two "
                "shares of the run in 0..1, the first one smaller"
            )
        return self

    def _check_controls(self) -> None:
        if isinstance(self.control, Mapping) and self.control_video is not None:
            raise InputError(
                "control names clips by kind and control_video is given too; leave control_video out"
            )
        clips = self.control_clips
        if any(clip is None for clip in clips.values()) or not (clips or self.video is not None):
            raise InputError(
                'no control clip is given; give control_video, control={"pose": clip}, or a video to restyle'
            )
        for kind in self.control_kinds:
            if kind not in CONTROL_KINDS:
                raise InputError(f'unknown control "{kind}": {nearest(str(kind), CONTROL_KINDS)}')
        if self.scenes and not self.extract and "pose" in self.control_kinds[:1]:
            raise InputError(
                "scene cuts are not seen in a ready pose clip; name the film that it was made of with "
                "scenes_of=FILE (--scenes-of FILE), in place of scenes"
            )
        if self.loop and self.num_frames is None:
            raise InputError(
                "loop repeats the control up to num_frames, and none is given; give it"
            )
        if self.every is not None and self.fps is not None:
            raise InputError(
                f"every={self.every} and fps={self.fps:g} both say which frames are taken; leave one out"
            )
        if self.invert_depth and "depth" not in self.control_kinds:
            raise InputError("invert_depth is for depth clips, and none is given; leave it out")

    def _check_parts(self) -> None:
        if self.prompt_syntax == "compel" and self.clip_skip not in (None, 1):
            raise InputError(
                f"clip_skip={self.clip_skip} is not possible with compel; give 1, or none"
            )
        if self.base_config is not None and self.base is None:
            raise InputError("base_config is for a base in one file, and none is given; give base")
        if self.ip_adapter_model is not None and self.ip_adapter is None:
            raise InputError("ip_adapter_model is given without a picture; give ip_adapter")
        for kind in self.controlnet or {}:
            if kind not in self.control_kinds:
                raise InputError(
                    f'controlnet names "{kind}", which no clip is given for: '
                    f"{nearest(str(kind), self.control_kinds)}"
                )
        for file, scale in self.loras.items():
            number = isinstance(scale, Real) and not isinstance(scale, bool)
            if not number or not math.isfinite(scale):
                raise InputError(f"the scale {scale!r} of {file} is not possible; give a number")

    @property
    def inputs(self) -> dict[str, Any]:
        """What a run reads beside its model, by name ("control.pose", "image", ...): files, or clips and
        images in memory."""
        given = {f"control.{kind}": clip for kind, clip in self.control_clips.items()}
        given |= {
            name: getattr(self, name) for name in ("image", "video", "ip_adapter", "scenes_of")
        }
        if not isinstance(self.audio, bool):
            given["audio"] = self.audio
        return {name: one for name, one in given.items() if one is not None}

    @property
    def loras(self) -> dict[str, float]:
        """The LoRA files with their scales; 1 where none is given."""
        given = self.lora
        if given is None:
            return {}
        if isinstance(given, Mapping):
            return {str(file): scale for file, scale in given.items()}
        files = [given] if isinstance(given, str | os.PathLike) else given
        try:
            return {str(os.fspath(file)): 1.0 for file in files}
        except TypeError:
            raise InputError(
                f"lora={given!r} is not possible; give a file, files, or {{file: scale}}"
            ) from None

    def _check_scales(self) -> None:
        scale = self.conditioning_scale
        given = scale if isinstance(scale, Mapping) else {"": scale}
        for kind, value in given.items():
            if kind and kind not in self.control_kinds:
                raise InputError(
                    f'conditioning_scale names "{kind}", which no clip is given for: '
                    f"{nearest(str(kind), self.control_kinds)}"
                )
            number = isinstance(value, Real) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf:
                raise InputError(
                    f"conditioning_scale={value!r} is not possible; give a number, 0 or more"
                )

    @property
    def control_clips(self) -> dict[str, Any]:
        """The control clips by kind: one, several at once, or none where a video is restyled without."""
        if isinstance(self.control, Mapping):
            return dict(self.control)
        if self.control_video is None and self.video is not None:
            return {}
        return {self.control: self.control_video}

    @property
    def control_kinds(self) -> tuple[str, ...]:
        """The kinds of the control clips, in their order."""
        return tuple(self.control_clips)

    @property
    def scales(self) -> tuple[float, ...]:
        """The strength of each control, 1 where several are given and one is not named."""
        scale = self.conditioning_scale
        if isinstance(scale, Mapping):
            return tuple(float(scale.get(kind, 1.0)) for kind in self.control_kinds)
        return (float(scale),) * len(self.control_kinds)

    @property
    def strengths(self) -> float | dict[str, float]:
        """The scales for the report: a number for one control, by kind for several."""
        several = dict(zip(self.control_kinds, self.scales, strict=True))
        return several if len(several) > 1 else sum(self.scales)

    @property
    def branches(self) -> int:
        """2 with classifier-free guidance, 1 without; of options that `for_model` made."""
        return 2 if (self.guidance_scale or 0) > 1 else 1

    @property
    def image_motion(self) -> ImageMotion:
        """The motion of a model that begins with an image, with its defaults."""
        return ImageMotion(**(self.motion or {}))

    @property
    def span(self) -> tuple[int, int | None]:
        """The control clip's frames that are taken: the first one, and the one after the last (None: all)."""
        return (0, None) if self.frames is None else _span(self.frames)

    @property
    def prompt_line(self) -> str:
        """The prompt in one line."""
        if isinstance(self.prompt, str):
            return self.prompt
        return " | ".join(f"{frame}: {text}" for frame, text in sorted(self.prompt.items()))

    @property
    def prompts(self) -> list[str]:
        """Every text that is to be encoded, but the negative one."""
        if isinstance(self.prompt, str):
            return [self.prompt] if self.prompt else []
        return list(self.prompt.values())

    def context(self, max_frames: int) -> tuple[int, int]:
        """Length of a window and the frames that neighbours share, of a model that holds `max_frames`."""
        length = max_frames if self.context_length is None else self.context_length
        if length > max_frames:
            raise InputError(
                f"context_length={length} is not possible; give 1 to {max_frames}, what the model holds"
            )
        overlap = length // 4 if self.context_overlap is None else self.context_overlap
        if overlap >= length:
            raise InputError(f"context_overlap={overlap} is not possible; give 0 to {length - 1}")
        return length, overlap

    def for_model(
        self, *, from_image: bool, num_inference_steps: int, guidance_scale: float
    ) -> GenerateOptions:
        """The options with what the model decides: its own number of steps and guidance where none are given,
        a seed where one is to be drawn. InputError where the model begins otherwise than is given."""
        if from_image:
            self._check_image()
        else:
            _check_prompt(self.prompt)
            for name in ("image", "motion"):
                if getattr(self, name) is not None:
                    raise InputError(f"{self.model} begins with a prompt; leave {name} out")
        decided: dict[str, Any] = {
            "num_inference_steps": self.num_inference_steps or num_inference_steps,
            "seed": secrets.randbelow(2**32) if self.seed is None else self.seed,
        }
        if self.guidance_scale is None:
            decided["guidance_scale"] = guidance_scale
        return self.model_copy(update=decided)

    def _check_image(self) -> None:
        begins = f"{self.model} begins with an image"
        if self.image is None:
            raise InputError(f"{begins}, and none is given; give image, the clip's first frame")
        for name in ("prompt", "negative_prompt", "clip_skip"):
            if getattr(self, name):
                raise InputError(f"{begins} and reads no {name}; leave it out")
        for name in ("scheduler", "ip_adapter", "video"):
            if getattr(self, name) is not None:
                raise InputError(f"{begins} and is taken as it is; leave {name} out")
        for name in ("context_length", "context_overlap", "scenes", "scenes_of"):
            if getattr(self, name) not in (None, False):
                raise InputError(f"{begins} and makes it whole, in no windows; leave {name} out")
        if len(self.control_kinds) > 1:
            kinds = ", ".join(self.control_kinds)
            raise InputError(f"{self.model} follows one control; {kinds} are given")

    def check_prompt_frames(self, num_frames: int) -> None:
        """PromptError where a prompt is given for a frame that the clip does not have."""
        if isinstance(self.prompt, str):
            return
        beyond = sorted(frame for frame in self.prompt if frame >= num_frames)
        if beyond:
            raise PromptError(
                f"a prompt is given from frame {beyond[0]} on, and the clip has {num_frames} frames, 0 to "
                f"{num_frames - 1}; name a frame of it, or make more with num_frames"
            )

    def to_dict(self) -> dict[str, Any]:
        """Every option as plain data, for the report: paths as text, clips in memory by their shape."""
        return {name: _plain(getattr(self, name)) for name in type(self).model_fields}


def _span(text: str) -> tuple[int, int | None]:
    """First frame, and the one after the last (None: none is the last), of "START:STOP"."""
    start, colon, stop = (part.strip() for part in text.partition(":"))
    numbers = all(part == "" or part.isdecimal() for part in (start, stop))
    if not colon or not numbers or (stop and int(stop) <= int(start or 0)):
        raise InputError(
            f'frames="{text}" is not possible; write START:STOP in frames of the control clip, as 100:260'
        )
    return int(start or 0), int(stop) if stop else None


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, os.PathLike):
        return str(Path(value))
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"an array of {'x'.join(map(str, shape))} in memory"
    return f"{len(value)} images in memory" if hasattr(value, "__len__") else "an image in memory"


def _check_prompt(prompt: object) -> None:
    texts = list(prompt.values()) if isinstance(prompt, Mapping) else [prompt]
    for text in texts:
        if not isinstance(text, str):
            raise PromptError(
                f"the prompt {text!r:.80} is no text; give one text, or texts by frame as "
                '{0: "...", 48: "..."}'
            )
    if not texts or not all(str(text).strip() for text in texts):
        raise PromptError("the prompt is empty; say what the clip shows")
    if isinstance(prompt, Mapping):
        frames = list(prompt)
        if not all(isinstance(f, int) and f >= 0 for f in frames) or 0 not in frames:
            raise PromptError(
                f'prompts by frame begin at frame 0, got {frames}; write {{0: "...", 48: "..."}}'
            )


def check_prompt_length(tokenizer: Any, prompt: str, name: str = "prompt") -> None:
    """PromptError where the text encoder would silently cut a plain prompt's end off."""
    limit = int(tokenizer.model_max_length)
    length = len(tokenizer(prompt).input_ids)
    if length > limit:
        raise PromptError(
            f"the {name} has {length - 2} tokens, the model reads {limit - 2}; make it shorter, "
            "or give prompt_syntax='compel' (--prompt-syntax compel), which reads it in parts"
        )
