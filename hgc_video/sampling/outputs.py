"""What a finished clip has beside its frames: sound, encoding and the configuration that it carries; checked
before a run, made after it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..errors import InputError, warn
from ..files import check_distinct
from ..media.control import ControlClip
from ..media.encoding import Encoding
from ..media.left_out import left_out
from ..media.sound import Sound, can_hold_sound, has_sound, sound_of_file, sound_of_frames
from ..media.sources import IMAGE_SUFFIXES
from ..media.video import check_output
from ..media.write import Extras
from ..models.identity import weight_hashes
from ..models.load import ModelFacts
from ..options import GenerateOptions
from .configuration import configuration
from .versions import versions

if TYPE_CHECKING:
    from .run import Run


def encoding_of(options: GenerateOptions) -> Encoding:
    """How the options have a movie encoded."""
    return Encoding(options.codec, options.crf, options.pix_fmt)


def check_out(options: GenerateOptions) -> None:
    """Refuses what could not be written, before minutes are spent on it."""
    if _names_a_file(options.audio):
        sound_of_file(options.audio, 1.0)
    if options.out is None:
        return
    inputs = [(_called(name), given) for name, given in options.inputs.items()]
    check_distinct({"out": options.out}, inputs)
    check_output(options.out, encoding_of(options))
    if _names_a_file(options.audio) and not can_hold_sound(options.out):
        raise InputError(
            f'"{options.out}" cannot hold sound; write .mp4 or .webm, or leave audio out'
        )


def _called(name: str) -> str:
    """An input as messages name it."""
    names = {"audio": "file of audio", "ip_adapter": "picture", "scenes_of": "film of scenes_of"}
    return "control clip" if name.startswith("control.") else names.get(name, name)


def tell_left_out(
    options: GenerateOptions, facts: ModelFacts, clips: Sequence[ControlClip]
) -> None:
    """Warns of what the run does not take of its control clips: frames of the first one, which decides the
    others', and sound that the file cannot hold."""
    most = facts.max_frames if facts.from_image and options.num_frames is None else None
    mute = options.out is not None and not can_hold_sound(options.out)
    sound = mute and _carried(options, clips) is not None
    told = left_out(clips[0], most=most, sound=str(options.out) if sound else None)
    if told:
        warn(told, stacklevel=5)  # who called generate


def sound_of(options: GenerateOptions, clips: Sequence[ControlClip]) -> Sound | None:
    """The sound of the clip that is made: of the file that `audio` names, or of the first control clip that
    has one, cut to the frames taken; None where there is none or none is wanted."""
    if _names_a_file(options.audio):
        return sound_of_file(options.audio, clips[0].shape[0] / clips[0].fps)
    return _carried(options, clips)


def extras_of(run: Run) -> Extras:
    """All that a run's clip has beside its frames."""
    options = run.options
    text = configuration_text(run) if options.metadata else None
    holds = options.out is None or can_hold_sound(options.out)
    source = run.beside.source
    clips = [*([source] if source else []), *run.controls]
    sound = sound_of(options, clips) if holds else None
    return Extras(text, encoding_of(options), sound)


def configuration_text(run: Run) -> str:
    """The configuration of a run, as text to embed."""
    made = configuration(
        run.options, run.options.out, run.files.names, versions=versions(), models=weight_hashes(run.pipe),
        clip={
            "num_frames": run.num_frames, "height": run.height, "width": run.width,
            "fps": run.lead.fps,
        },
        steps=[asdict(step) for step in run.executed_steps()],
    )  # fmt: skip
    made["files"] = run.files.as_begun(made["files"])
    return json.dumps(made, ensure_ascii=True, separators=(",", ":"))


def _names_a_file(audio: object) -> bool:
    return isinstance(audio, str | os.PathLike)


def _carried(options: GenerateOptions, clips: Sequence[ControlClip]) -> Sound | None:
    """The sound of the first control clip that has one, cut to the frames taken."""
    if options.audio is not True:
        return None
    for clip in clips:
        file, source = clip.file, clip.source
        if file is None or source is None or not clip.taken:
            continue
        is_movie = file.is_file() and file.suffix.lower() not in IMAGE_SUFFIXES
        if is_movie and has_sound(file):
            return sound_of_frames(
                file, clip.taken, source_fps=source.fps, fps=clip.fps, begins_s=source.begins_s
            )
    return None
