"""The control clips and the first frame of a run, read as its options say."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from ..media.control import ControlClip, Placement, load_control, source_rates
from ..media.frames import Frame
from ..media.video import VideoLike, read_image
from ..models.load import EMBEDDED, ModelFacts
from ..options import GenerateOptions
from ..preprocess.base import Preprocessor
from ..preprocess.depth import Depth
from ..preprocess.extract import extract_control
from ..preprocess.registry import choose_preprocessors


def read_controls(
    options: GenerateOptions, facts: ModelFacts, progress: bool = False
) -> list[ControlClip]:
    """The control clips; the first one decides frames, size and rate of all."""
    raw = choose_preprocessors(options.extract, options.control_kinds)
    if options.invert_depth and "depth" in raw:
        raise InputError(
            "invert_depth is for a ready depth clip, and this one is extracted, near bright; leave it out"
        )
    for preprocessor in raw.values():
        preprocessor.require(options.offline)
    rates = source_rates(options.control_clips, options.source_fps)
    (kind, video), *others = options.control_clips.items()
    first = _read_control(options, facts, kind, video, rates[kind], raw.get(kind), progress)
    num_frames, height, width = first.shape
    read = [first]
    sized = options.model_copy(
        update={"height": height, "width": width, "fps": first.fps, "num_frames": num_frames}
    )
    for kind, video in others:
        try:
            made = raw.get(kind)
            read.append(_read_control(sized, facts, kind, video, rates[kind], made, progress))
        except InputError as error:
            beside = f"beside the {options.control_kinds[0]} clip of {num_frames} frames"
            beside += f" at {first.fps:g} fps"
            raise type(error)(f"the {kind} clip, {beside}: {error}") from error
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


def read_first_frame(options: GenerateOptions, clip: ControlClip) -> Frame | None:
    """The image (H W 3) that a clip begins with, of the clip's size; None where there is none."""
    if options.image is None:
        return None
    image = read_image(options.image)
    _, height, width = clip.shape
    return Placement(image.shape[0], image.shape[1], height, width).frame(image)


def _read_control(
    options: GenerateOptions, facts: ModelFacts, kind: str, video: VideoLike, rate: float | None,
    preprocessor: Preprocessor | None, progress: bool,
) -> ControlClip:  # fmt: skip
    """A ready control clip, or what a preprocessor takes from a raw film."""
    whole = options.num_frames is None or facts.from_image
    given: dict[str, Any] = {
        "num_frames": options.num_frames, "height": options.height, "width": options.width,
        "fps": options.fps, "multiple": facts.multiple, "default_area": facts.default_area,
        "max_frames": facts.max_frames if whole else None,
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
    return load_control(video, kind, source_fps=rate, invert_depth=invert, **given)
