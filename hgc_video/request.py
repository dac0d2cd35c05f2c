"""What the caller of `generate` asked for, checked before anything is loaded."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .errors import InputError, PromptError, nearest
from .media.video import ImageLike, VideoLike
from .models.load import CONTROLS


@dataclass(frozen=True)
class Motion:
    """How a clip moves that begins with an image, as Stable Video Diffusion is told it: frames per second,
    a bucket of motion (more is livelier), noise on the image (more leaves it sooner); and how strongly the
    image pulls at the first frame, from where the pull grows to guidance_scale at the last."""

    fps: int = 7
    motion_bucket_id: int = 127
    noise_aug_strength: float = 0.02
    min_guidance_scale: float = 1.0

    def __post_init__(self) -> None:
        _require(1 <= self.fps <= 60, "motion fps", self.fps, "1 to 60")
        _require(
            0 <= self.motion_bucket_id <= 255, "motion_bucket_id", self.motion_bucket_id, "0 to 255"
        )
        for name in ("noise_aug_strength", "min_guidance_scale"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, name, value, "0 or more")


def make_motion(told: Mapping[str, float] | None) -> Motion:
    """Motion with what is told of it, as {"motion_bucket_id": 60}; InputError names the nearest field."""
    whole = {field.name: field.type == "int" for field in fields(Motion)}
    made: dict[str, Any] = {}
    for name, value in (told or {}).items():
        if name not in whole:
            raise InputError(f'motion has no "{name}": {nearest(name, whole)}')
        number = isinstance(value, int | float) and (not whole[name] or float(value).is_integer())
        _require(number, name, value, "a whole number" if whole[name] else "a number")
        made[name] = int(value) if whole[name] else float(value)
    return Motion(**made)


@dataclass(frozen=True)
class Request:
    """The plain values of one run; bad ones are refused when it is made.

    `from_image` says that the model begins with an image and reads no prompt.
    """

    control_video: VideoLike | Mapping[str, VideoLike]
    prompt: str | Mapping[int, str]
    control: str
    model: str
    negative_prompt: str | None
    num_inference_steps: int
    guidance_scale: float | None
    conditioning_scale: float | Mapping[str, float]
    num_frames: int | None
    height: int | None
    width: int | None
    fps: float | None
    seed: int
    extract: bool
    control_guidance_start: float = 0.0
    control_guidance_end: float = 1.0
    context_length: int | None = None
    context_overlap: int | None = None
    image: ImageLike | None = None
    motion: Motion = field(default_factory=Motion)
    from_image: bool = False
    source_fps: float | None = None
    invert_depth: bool = False

    def __post_init__(self) -> None:
        self._check_beginning()
        for kind in self.kinds:
            if kind not in CONTROLS:
                raise InputError(f'unknown control "{kind}": {nearest(kind, CONTROLS)}')
        self._check_scales()
        _require(
            self.num_inference_steps >= 1,
            "num_inference_steps",
            self.num_inference_steps,
            "at least 1",
        )
        _require(
            self.num_inference_steps <= 1000,
            "num_inference_steps",
            self.num_inference_steps,
            "at most 1000",
        )
        scale = self.guidance_scale
        _require(scale is None or 0 <= scale < math.inf, "guidance_scale", scale, "0 or more")
        start, end = self.control_guidance_start, self.control_guidance_end
        _require(
            0 <= start < end <= 1,
            "control_guidance_start..control_guidance_end",
            f"{start}..{end}",
            "two shares of the run in 0..1, the first one smaller",
        )
        rate = self.source_fps
        _require(rate is None or 0 < rate < math.inf, "source_fps", rate, "a positive number")
        if self.invert_depth and "depth" not in self.kinds:
            raise InputError("invert_depth is given and no depth clip is; leave it out")
        _require(0 <= self.seed < 2**63, "seed", self.seed, "a whole number from 0 to 2**63 - 1")

    def _check_beginning(self) -> None:
        """A model begins with a prompt, or with an image."""
        if self.from_image:
            self._check_image()
            return
        _check_prompt(self.prompt)
        for name, given in (("image", self.image), ("motion", self.motion != Motion() or None)):
            if given is not None:
                raise InputError(f"{self.model} begins with a prompt; leave {name} out")

    def _check_image(self) -> None:
        begins = f"{self.model} begins with an image"
        if self.image is None:
            raise InputError(f"{begins}, and none is given; give image, the clip's first frame")
        for name in ("prompt", "negative_prompt"):
            if getattr(self, name):
                raise InputError(f"{begins} and reads no {name}; leave it out")
        for name in ("context_length", "context_overlap"):
            if getattr(self, name) is not None:
                raise InputError(f"{begins} and makes it whole, in no windows; leave {name} out")
        if len(self.kinds) > 1:
            raise InputError(f"{self.model} follows one control; {', '.join(self.kinds)} are given")

    def _check_scales(self) -> None:
        if not self.kinds:
            raise InputError("no control clip is given; name one, as {'pose': 'clip.mp4'}")
        if isinstance(self.conditioning_scale, Mapping):
            for kind in self.conditioning_scale:
                if kind not in self.kinds:
                    raise InputError(
                        f'conditioning_scale names "{kind}", which no clip is given for: '
                        f"{nearest(kind, self.kinds)}"
                    )
        for scale in self.scales:
            _require(0 <= scale < math.inf, "conditioning_scale", scale, "0 or more")

    @property
    def controls(self) -> dict[str, VideoLike]:
        """The control clips by kind: one, or several at once."""
        if isinstance(self.control_video, Mapping):
            return dict(self.control_video)
        return {self.control: self.control_video}

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the controls, in their order."""
        return tuple(self.controls)

    @property
    def scales(self) -> tuple[float, ...]:
        """How strongly each control pulls, 1 where several are given and one is not named."""
        scale = self.conditioning_scale
        if isinstance(scale, Mapping):
            return tuple(float(scale.get(kind, 1.0)) for kind in self.kinds)
        return (float(scale),) * len(self.kinds)

    def told_scales(self) -> float | dict[str, float]:
        """The scales for the report: a number for one control, by kind for several."""
        several = dict(zip(self.kinds, self.scales, strict=True))
        return several if len(several) > 1 else self.scales[0]

    def prompts(self) -> list[str]:
        """Every text that is to be encoded, but the negative one."""
        if self.from_image:
            return []
        return [self.prompt] if isinstance(self.prompt, str) else list(self.prompt.values())

    def told_prompt(self) -> str:
        """The prompt in one line, for the report."""
        if isinstance(self.prompt, str):
            return self.prompt
        return " | ".join(f"{frame}: {text}" for frame, text in sorted(self.prompt.items()))

    def told_image(self) -> str:
        """The image in a few words, for the report; nothing where there is none."""
        named = isinstance(self.image, str | os.PathLike)
        return "" if self.image is None else str(self.image) if named else "an image in memory"

    def context(self, max_frames: int) -> tuple[int, int]:
        """Length of a window and the frames that neighbours share, for a model that holds so many."""
        length = max_frames if self.context_length is None else self.context_length
        _require(
            1 <= length <= max_frames,
            "context_length",
            length,
            f"1 to {max_frames}, what the model holds",
        )
        overlap = length // 4 if self.context_overlap is None else self.context_overlap
        _require(0 <= overlap < length, "context_overlap", overlap, f"0 to {length - 1}")
        return length, overlap


def _check_prompt(prompt: object) -> None:
    told = prompt.values() if isinstance(prompt, Mapping) else [prompt]
    if not told or not all(isinstance(text, str) and text.strip() for text in told):
        raise PromptError("the prompt is empty; say what the clip shows")
    if isinstance(prompt, Mapping):
        frames = list(prompt)
        if not all(isinstance(f, int) and f >= 0 for f in frames) or 0 not in frames:
            raise PromptError(
                f"a travelling prompt names frames from 0 on, got {frames}; "
                'write {0: "...", 48: "..."}'
            )


def _require(holds: bool, name: str, given: object, allowed: str) -> None:
    if not holds:
        raise InputError(f"{name}={given} is not possible; give {allowed}")


def check_prompt_length(tokenizer: object, prompt: str, name: str = "prompt") -> None:
    """PromptError where the text encoder would silently cut the prompt's end off."""
    limit = int(tokenizer.model_max_length)  # type: ignore[attr-defined]
    length = len(tokenizer(prompt).input_ids)  # type: ignore[operator]
    if length > limit:
        raise PromptError(
            f"the {name} has {length - 2} tokens, the model reads {limit - 2}; make it shorter"
        )
