"""The options of one `generate` call, checked against each other, and what follows from them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from ..errors import InputError, PromptError, nearest
from .fields import GenerateFields
from .image_motion import ImageMotion
from .prompts import check_prompt
from .values import CONTROL_KINDS, is_number, plain, span_of


class GenerateOptions(GenerateFields):
    """Every option of `generate`, checked.

    Raises:
        InputError: an unknown option or a value that is not possible; the message says what is.
        PromptError: an empty prompt, or one that is no text.
    """

    @model_validator(mode="after")
    def _check(self) -> GenerateOptions:
        self._check_controls()
        self._check_parts()
        self._check_scales()
        self._check_devices()
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
            if not is_number(scale):
                raise InputError(f"the scale {scale!r} of {file} is not possible; give a number")

    def _check_devices(self) -> None:
        if self.devices == 1:
            return
        if self.work is not None:
            raise InputError(
                f"devices={self.devices} keeps no work folder, as its processes are not resumed; leave work "
                "out, or give devices=1"
            )
        if self.device is not None and self.device not in ("cpu", "cuda"):
            raise InputError(
                f'devices={self.devices} with device "{self.device}" is not possible; give cpu or cuda, or '
                "leave device out"
            )

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
            if not is_number(value) or value < 0:
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
        if not isinstance(self.control, str):
            raise InputError(
                f"control={self.control!r} is not possible; give a kind, as pose, or {{kind: clip}}"
            )
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
        return (0, None) if self.frames is None else span_of(self.frames)

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
            check_prompt(self.prompt)
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
        return {name: plain(getattr(self, name)) for name in type(self).model_fields}
