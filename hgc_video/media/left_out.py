"""What of a control clip a run does not take, in one line with how to have it."""

from __future__ import annotations

import os

from hgc_video.files import ffmpeg_name, user_path
from hgc_video.media.control import ControlClip, plan_frames
from hgc_video.media.sources import IMAGE_SUFFIXES
from hgc_video.media.video import VideoLike


def left_out(
    clip: ControlClip, video: VideoLike, *, fps: float | None, told: bool, most: int | None = None
) -> str:
    """The frames, seconds and sound of `video` that `clip` leaves out; nothing where it is all there.

    Args:
        fps: the rate that was asked for, None for the clip's own.
        told: whether the number of frames was asked for, so that frames left out are no news.
        most: frames that the model makes of any clip; None where it makes as many as are asked for.
    """
    sound = has_sound(video)
    frames = "" if told else _frames_left(clip, fps, most)
    if not frames and not sound:
        return ""
    name = f'"{video}"' if isinstance(video, str | os.PathLike) else "the control clip"
    parts = [frames] if frames else []
    if sound:
        parts.append(
            "its sound is left out; copy it over with: "
            f'ffmpeg -i OUT.mp4 -i "{_named(video)}" -map 0:v -map 1:a -c copy -shortest NEW.mp4'
        )
    return f"{name}: {'; '.join(parts)}"


def _named(video: VideoLike) -> str:
    """The file's name as ffmpeg reads it right, a colon in it too."""
    return ffmpeg_name(user_path(video)) if isinstance(video, str | os.PathLike) else ""


def has_sound(video: VideoLike) -> bool:
    """Whether a clip is a movie file with a sound track."""
    if not isinstance(video, str | os.PathLike):
        return False
    path = user_path(video)
    if not path.is_file() or path.suffix.lower() in IMAGE_SUFFIXES:
        return False
    import av

    with av.open(ffmpeg_name(path)) as container:
        return bool(container.streams.audio)


def _frames_left(clip: ControlClip, fps: float | None, most: int | None) -> str:
    source, taken = clip.source, clip.shape[0]
    if source is None:
        return ""
    whole = len(plan_frames(source.num_frames, source.fps, fps=fps)[0])
    if taken >= whole:
        return ""
    how = (
        f"num_frames={whole} (--num-frames {whole}) takes all, in overlapping windows"
        if most is None
        else f"the model makes at most {most}"
    )
    return (
        f"the first {taken} of {whole} frames at {clip.fps:g} fps are taken, {taken / clip.fps:.1f} of "
        f"{source.duration_s:.1f} s; {how}"
    )
