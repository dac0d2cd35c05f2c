"""The control clips and the first frame of a run, read as its options say."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from ..errors import InputError
from ..files import user_path
from ..media.control import ControlClip, Placement, load_control, name_of, source_rates
from ..media.frame_choice import FrameChoice
from ..media.frames import Frame
from ..media.looks import SOURCE
from ..media.scenes import find_cuts
from ..media.video import VideoLike, open_clip, read_image
from ..models.load import EMBEDDED, ModelFacts
from ..options import GenerateOptions
from ..preprocess.base import Preprocessor
from ..preprocess.depth import Depth
from ..preprocess.extract import extract_control
from ..preprocess.registry import choose_preprocessors


def read_controls(
    options: GenerateOptions, facts: ModelFacts, progress: bool = False
) -> list[ControlClip]:
    """The control clips, behind the video that is restyled (of kind "video") where there is one; the first
    one decides frames, size and rate of all."""
    raw = choose_preprocessors(options.extract, options.control_kinds)
    if options.invert_depth and "depth" in raw:
        raise InputError(
            "invert_depth is for a ready depth clip, and this one is extracted, near bright; leave it out"
        )
    for preprocessor in raw.values():
        preprocessor.require(options.offline)
    restyled = {} if options.video is None else {SOURCE: options.video}
    clips = {**restyled, **options.control_clips}
    rates = source_rates(clips, options.source_fps)
    (kind, video), *others = clips.items()
    start, stop = options.span
    choice = FrameChoice(start, stop, options.every, options.loop)
    made = raw.get(kind)
    first = _read_control(options, facts, kind, video, rates[kind], choice, made, progress)
    num_frames, height, width = first.shape
    if options.scenes or options.scenes_of is not None:
        shortest = max(1, options.context(facts.max_frames)[0] // 2)
        first = replace(first, cuts=_cuts(first, video, options.scenes_of, shortest))
    read = [first]
    sized = options.model_copy(
        update={"height": height, "width": width, "fps": first.fps, "num_frames": num_frames}
    )
    begins = first.taken[0] / first.source.fps if first.source and first.taken else 0.0
    beside = FrameChoice(loop=options.loop, start_s=begins)
    for kind, video in others:
        try:
            made = raw.get(kind)
            read.append(
                _read_control(sized, facts, kind, video, rates[kind], beside, made, progress)
            )
        except InputError as error:
            told = f"the {kind} clip, {name_of(video)}, beside the {first.kind} clip of "
            told += f"{num_frames} frames at {first.fps:g} fps ({num_frames / first.fps:.1f} s)"
            raise type(error)(f"{told}: {error}") from error
    return read


def choose_fidelity(options: GenerateOptions) -> dict[str, Preprocessor]:
    """What extracts each control from the finished clip again: as told, else what extracted it before, else
    the default of its kind. Says before the run what is missing, as `Preprocessor.require`."""
    if not options.fidelity:
        return {}
    if options.fidelity is not True:
        again = choose_preprocessors(options.fidelity, options.control_kinds)
    else:
        again = choose_preprocessors(True, options.control_kinds)
        if options.model == EMBEDDED and "depth" in again:
            again["depth"] = Depth(model=EMBEDDED)  # it knows this model's world
        again |= choose_preprocessors(options.extract, options.control_kinds)
    for preprocessor in again.values():
        preprocessor.require(options.offline)
    return again


def _cuts(
    clip: ControlClip, video: VideoLike, film: VideoLike | None, shortest: int
) -> tuple[int, ...]:
    """Where the scenes of a control clip begin, by the frames of its source or of the film of that."""
    source = open_clip(video if film is None else film)
    count, taken = source.info.num_frames, list(clip.taken)
    if clip.source is not None and count != clip.source.num_frames:  # matched by time
        share = source.info.fps / clip.source.fps
        taken = [min(count - 1, round(at * share)) for at in taken]
    return find_cuts(source.frames(taken), shortest)


def read_first_frame(options: GenerateOptions, clip: ControlClip) -> Frame | None:
    """The image (H W 3) that a clip begins with, of the clip's size; None where there is none."""
    if options.image is None:
        return None
    image = read_image(options.image)
    _, height, width = clip.shape
    return Placement(image.shape[0], image.shape[1], height, width).frame(image)


def read_picture(options: GenerateOptions) -> Frame | None:
    """The picture (H W 3) of the IP-Adapter, as large as it is; None where there is none."""
    return None if options.ip_adapter is None else read_image(options.ip_adapter)


def _read_control(
    options: GenerateOptions, facts: ModelFacts, kind: str, video: VideoLike, rate: float | None,
    choice: FrameChoice, preprocessor: Preprocessor | None, progress: bool,
) -> ControlClip:  # fmt: skip
    """A ready control clip, or what a preprocessor takes from a raw film."""
    clip = _opened(options, facts, kind, video, rate, choice, preprocessor, progress)
    if not isinstance(video, str | os.PathLike):
        return clip
    return replace(clip, file=user_path(video))


def _opened(
    options: GenerateOptions, facts: ModelFacts, kind: str, video: VideoLike, rate: float | None,
    choice: FrameChoice, preprocessor: Preprocessor | None, progress: bool,
) -> ControlClip:  # fmt: skip
    given: dict[str, Any] = {
        "num_frames": options.num_frames, "height": options.height, "width": options.width,
        "fps": options.fps, "multiple": facts.multiple, "default_area": facts.default_area,
        "max_frames": facts.max_frames if facts.from_image else None, "choice": choice,
    }  # fmt: skip
    if preprocessor is not None:
        return extract_control(
            video,
            preprocessor,
            source_fps=rate,
            offline=options.offline,
            progress=progress,
            **given,
        )
    invert = options.invert_depth and kind == "depth"
    return load_control(
        video, kind, source_fps=rate, invert_depth=invert, force=options.force, **given
    )
