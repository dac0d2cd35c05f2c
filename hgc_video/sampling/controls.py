"""The control clips and the first frame of a run, read as its options say."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from ..media.control import ControlClip, Placement, load_control, source_rates
from ..media.frames import Frame
from ..media.looks import SOURCE
from ..media.video import VideoLike, read_image
from ..models.load import ModelFacts
from ..options import GenerateOptions


def read_controls(options: GenerateOptions, facts: ModelFacts) -> list[ControlClip]:
    """The control clips, behind the video that is restyled (of kind "video") where there is one; the first
    one decides frames, size and rate of all."""
    restyled = {} if options.video is None else {SOURCE: options.video}
    clips = {**restyled, **options.control_clips}
    rates = source_rates(clips, options.source_fps)
    (kind, video), *others = clips.items()
    first = _read_control(options, facts, kind, video, rates[kind])
    num_frames, height, width = first.shape
    read = [first]
    sized = options.model_copy(
        update={"height": height, "width": width, "fps": first.fps, "num_frames": num_frames}
    )
    for kind, video in others:
        try:
            read.append(_read_control(sized, facts, kind, video, rates[kind]))
        except InputError as error:
            beside = f"beside the {first.kind} clip of {num_frames} frames"
            beside += f" at {first.fps:g} fps"
            raise type(error)(f"the {kind} clip, {beside}: {error}") from error
    return read


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
    options: GenerateOptions, facts: ModelFacts, kind: str, video: VideoLike, rate: float | None
) -> ControlClip:
    whole = options.num_frames is None or facts.from_image
    given: dict[str, Any] = {
        "num_frames": options.num_frames, "height": options.height, "width": options.width,
        "fps": options.fps, "multiple": facts.multiple, "default_area": facts.default_area,
        "max_frames": facts.max_frames if whole else None,
    }  # fmt: skip
    if options.extract and kind != SOURCE:
        from ..media.pose import extract_control

        return extract_control(video, kind, **given)
    invert = options.invert_depth and kind == "depth"
    return load_control(video, kind, source_fps=rate, invert_depth=invert, **given)
