"""What of a control clip a run does not take, in one line with how to have it."""

from __future__ import annotations

from hgc_video.media.control import ControlClip


def left_out(clip: ControlClip, *, most: int | None = None, sound: str | None = None) -> str:
    """The frames and the sound of a clip's source that a run leaves out; nothing where it is all there.

    Args:
        most: frames that the model makes of any clip; None where it makes as many as are asked for.
        sound: the file that is written and cannot hold the clip's sound; None where nothing is lost.
    """
    parts = [_frames_left(clip, most)] if most is not None else []
    if sound is not None:
        parts.append(f'its sound is left out, as "{sound}" cannot hold any; write .mp4 or .webm')
    name = "the control clip" if clip.file is None else f'"{clip.file}"'
    told = "; ".join(part for part in parts if part)
    return f"{name}: {told}" if told else ""


def _frames_left(clip: ControlClip, most: int) -> str:
    source, taken = clip.source, clip.shape[0]
    if source is None or taken < most or taken / clip.fps >= source.duration_s - 0.5 / clip.fps:
        return ""
    return (
        f"the first {taken} frames at {clip.fps:g} fps are taken, {taken / clip.fps:.1f} of "
        f"{source.duration_s:.1f} s; the model makes at most {most}"
    )
