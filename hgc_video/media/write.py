"""Writes clips: mp4, webm, gif, webp or a folder of PNGs, by suffix; with sound and text where they hold it.

Complete or not at all (files.py), and frame by frame for movies and folders; the encoders of gif and webp
want all frames at once.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hgc_video.errors import InputError, VideoError
from hgc_video.files import complete_or_gone, ffmpeg_name, require_writable, unwritable, user_path
from hgc_video.media.encoding import PLAIN, Encoding, halves_colour
from hgc_video.media.frames import Frame
from hgc_video.media.metadata import MOVIE_TAG, PNG_TAG, gif_comment, webp_exif
from hgc_video.media.sound import Sound, can_hold_sound, sound_track
from hgc_video.media.thread_priority import scheduling_kept

if TYPE_CHECKING:
    import av


_SOUND_AHEAD_S = 0.5  # sound is written so far before the picture, as players read it


@dataclass(frozen=True)
class Extras:
    """What a clip has beside its frames: `text` to embed (None: none), how it is encoded, its sound."""

    text: str | None = None
    encoding: Encoding = PLAIN
    sound: Sound | None = None


NOTHING = Extras()
Encode = Callable[[Path, Iterator[Frame], float, Extras], None]


def write_video(
    path: str | os.PathLike[str],
    frames: Frame | Iterable[Frame],
    fps: float,
    extras: Extras = NOTHING,
) -> Path:
    """Writes frames (f H W 3) uint8, or an iterable of (H W 3), and returns the path.

    .mp4 (H.264 with faststart unless told otherwise) and .webm (VP9) are yuv420p, BT.709 and tagged so (odd
    sizes get one repeated row or column), .gif, .webp, and a path without suffix becomes a folder of PNGs
    (frame_00000.png, ...).

    Raises:
        InputError: `fps` is not positive, frames have the wrong shape or dtype, the file cannot be encoded
            as told.
        VideoError: unknown suffix, zero frames, a place that cannot be written, a full disk.
    """
    target = user_path(path)
    if not 0 < fps <= sys.float_info.max:
        raise InputError(f"fps={fps} is not possible; give a positive number")
    encode = _encoder(target)
    extras.encoding.check(target)
    if extras.sound is not None and not can_hold_sound(target):
        raise InputError(
            f'"{target}" cannot hold sound; write .mp4 or .webm, or leave the sound out'
        )
    _require_place(target)
    with complete_or_gone(target, VideoError) as part:
        encode(part, _checked(frames), fps, extras)
    return target


def check_output(path: str | os.PathLike[str], encoding: Encoding = PLAIN) -> None:
    """Raises VideoError or InputError when no clip could be written to `path`: ask before a long run."""
    target = user_path(path)
    _encoder(target)
    encoding.check(target)
    _require_place(target)
    require_writable(target, VideoError)


def _encoder(target: Path) -> Encode:
    encoders: dict[str, Encode] = {
        ".mp4": _write_movie, ".webm": _write_movie, ".gif": _write_gif, ".webp": _write_webp,
        "": _write_folder,
    }  # fmt: skip
    suffix = target.suffix.lower()
    if (
        not suffix and target.name.lower() in encoders
    ):  # pathlib sees a hidden file without a suffix
        raise VideoError(f'"{target}" is a suffix alone; name a file, as clip{target.name}')
    if suffix not in encoders:
        raise VideoError(
            f'unknown suffix "{target.suffix}" of "{target}" '
            "(allowed: .mp4, .webm, .gif, .webp, or none for a folder of PNGs)"
        )
    return encoders[suffix]


def _require_place(target: Path) -> None:
    parent = target.parent
    try:
        if not parent.is_dir():
            raise VideoError(f'no folder "{parent}" to write "{target.name}" in; create it first')
        if target.suffix and target.is_dir():
            raise VideoError(f'"{target}" is a folder; name another file')
        if not target.suffix and target.exists() and not _is_ours(target):
            raise VideoError(f'"{target}" exists and is no folder of frames; name another folder')
    except OSError as error:
        raise unwritable(target, error, VideoError) from error


def _is_ours(folder: Path) -> bool:
    return folder.is_dir() and all(p.match("frame_*.png") for p in folder.iterdir())


def _checked(frames: Iterable[Frame]) -> Iterator[Frame]:
    size: tuple[int, ...] | None = None
    for frame in frames:
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise InputError(f"frames must be (H W 3) uint8, got {frame.shape} {frame.dtype}")
        if size is not None and frame.shape != size:
            raise InputError(f"all frames must have one size, got {size} and {frame.shape}")
        size = frame.shape
        yield frame
    if size is None:
        raise VideoError("the clip has zero frames; nothing was written")


def _write_movie(path: Path, frames: Iterator[Frame], fps: float, extras: Extras) -> None:
    import av

    suffix, encoding = path.suffix.lower(), extras.encoding
    options = {"movflags": "+faststart"} if suffix == ".mp4" else {}
    with _sound_fits(extras.sound), ExitStack() as stack:  # closing a file may fail by it too
        kind = suffix.removeprefix(".")
        opened = av.open(ffmpeg_name(path), "w", format=kind, container_options=options)
        container = stack.enter_context(opened)
        if extras.text is not None:
            container.metadata[MOVIE_TAG] = extras.text
        first = list(islice(frames, 2))
        rate = Fraction(fps).limit_denominator(1001)
        stream = encoding.add_stream(container, suffix, rate, single=len(first) == 1)
        track = None
        if extras.sound is not None:
            track = stack.enter_context(sound_track(container, suffix, extras.sound))
        odd = halves_colour(encoding.pix_fmt)
        for number, pixels in enumerate(chain(first, frames)):
            whole = _even(pixels) if odd else pixels
            if number == 0:
                stream.height, stream.width = whole.shape[:2]
            frame = _as_bt709(whole, stream.pix_fmt)
            with scheduling_kept() if number == 0 else nullcontext():  # the encoder opens
                packets = stream.encode(frame)
            container.mux(packets)
            if track is not None:
                track.write_up_to(number / fps + _SOUND_AHEAD_S)
        container.mux(stream.encode())
        if track is not None:
            track.write_up_to(math.inf)


@contextmanager
def _sound_fits(sound: Sound | None) -> Iterator[None]:
    """VideoError where a movie cannot be written with this sound: what its file says of it is damaged."""
    import av

    try:
        yield
    except (av.error.InvalidDataError, av.error.ArgumentError) as error:
        if sound is None:
            raise
        raise VideoError(
            f'the sound of "{sound.path}" is damaged and cannot be written; leave it out (audio=False)'
        ) from error


def _even(frame: Frame) -> Frame:
    """A frame of even height and width, its last row or column repeated where it was odd."""
    return np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), "edge")


def _as_bt709(rgb: Frame, pix_fmt: str) -> av.VideoFrame:
    """A frame (H W 3) in the one YUV that players agree on, whatever the size, when it is named."""
    from av import VideoFrame
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    frame = VideoFrame.from_ndarray(rgb, format="rgb24")
    frame = frame.reformat(
        format=pix_fmt, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
    )
    frame.color_trc, frame.color_primaries = ColorTrc.BT709, ColorPrimaries.BT709
    return frame


def _write_gif(path: Path, frames: Iterator[Frame], fps: float, extras: Extras) -> None:
    images = [Image.fromarray(frame) for frame in frames]
    delays = [10 * ticks for ticks in _delays(len(images), 100 / fps)]
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=delays, loop=0,
        **gif_comment(extras.text),
    )  # fmt: skip


def _write_webp(path: Path, frames: Iterator[Frame], fps: float, extras: Extras) -> None:
    images = [Image.fromarray(frame) for frame in frames]
    delays = _delays(len(images), 1000 / fps)
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=delays, loop=0, quality=90,
        **webp_exif(extras.text),
    )  # fmt: skip


def _delays(count: int, ticks: float) -> list[int]:
    """Whole ticks per frame whose sum stays true to the frame rate."""
    ends = np.round(np.arange(count + 1) * ticks).astype(int)
    return [max(1, int(delay)) for delay in np.diff(ends)]


def _write_folder(path: Path, frames: Iterator[Frame], fps: float, extras: Extras) -> None:
    path.mkdir()
    for number, frame in enumerate(frames):
        told = PngInfo()
        told.add_text("fps", f"{fps:g}")  # read back by FolderSource
        if number == 0 and extras.text is not None:
            told.add_itxt(PNG_TAG, extras.text, zip=True)
        Image.fromarray(frame).save(path / f"frame_{number:05d}.png", pnginfo=told)
