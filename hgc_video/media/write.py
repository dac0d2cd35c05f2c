"""Writes clips: H.264 mp4, gif, webp or a folder of PNGs, by suffix.

Complete or not at all (atomic.py), and frame by frame for mp4 and folders; the encoders of gif and webp
want all frames at once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hgc_video.errors import InputError, VideoError
from hgc_video.files import complete_or_gone, ffmpeg_name, require_writable, unwritable, user_path
from hgc_video.media.frames import Frame

if TYPE_CHECKING:
    import av


def write_video(path: str | os.PathLike[str], frames: Frame | Iterable[Frame], fps: float) -> Path:
    """Writes frames (f H W 3) uint8, or an iterable of (H W 3), and returns the path.

    .mp4 is H.264 yuv420p with faststart, BT.709 and tagged so (odd sizes get one repeated row or column),
    .gif, .webp, and a path without suffix becomes a folder of PNGs (frame_00000.png, ...).

    Raises:
        InputError: `fps` is not positive, or frames have the wrong shape or dtype.
        VideoError: unknown suffix, zero frames, a place that cannot be written, a full disk.
    """
    target = user_path(path)
    if not (math.isfinite(fps) and fps > 0):
        raise InputError(f"fps={fps} is not possible; give a positive number")
    encode = _encoder(target)
    _require_place(target)
    with complete_or_gone(target, VideoError) as part:
        encode(part, _checked(frames), fps)
    return target


def check_output(path: str | os.PathLike[str]) -> None:
    """Raises VideoError when no clip could be written to `path`: ask before a long run."""
    target = user_path(path)
    _encoder(target)
    _require_place(target)
    require_writable(target, VideoError)


def _encoder(target: Path) -> Callable[[Path, Iterator[Frame], float], None]:
    encoders = {".mp4": _write_mp4, ".gif": _write_gif, ".webp": _write_webp, "": _write_folder}
    suffix = target.suffix.lower()
    if (
        not suffix and target.name.lower() in encoders
    ):  # pathlib sees a hidden file without a suffix
        raise VideoError(f'"{target}" is a suffix alone; name a file, as clip{target.name}')
    if suffix not in encoders:
        raise VideoError(
            f'unknown suffix "{target.suffix}" of "{target}" '
            "(allowed: .mp4, .gif, .webp, or none for a folder of PNGs)"
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


def _write_mp4(path: Path, frames: Iterator[Frame], fps: float) -> None:
    import av
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    options = {"movflags": "+faststart"}
    with av.open(ffmpeg_name(path), "w", format="mp4", container_options=options) as container:
        # "h264" is this build's H.264 encoder: libx264 in the wheels, others elsewhere.
        stream = container.add_stream("h264", rate=Fraction(fps).limit_denominator(1001))
        stream.pix_fmt = "yuv420p"
        # x264's macroblock tree reads memory that was never written, at sizes up to 128 pixels at least, so
        # that the same frames give other bytes in another process.
        steady = {"x264-params": "mbtree=0"} if stream.codec_context.codec.name == "libx264" else {}
        stream.options = {"crf": "17", "preset": "medium", **steady}
        context = stream.codec_context
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        for number, frame in enumerate(frames):
            even = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), "edge")
            if number == 0:
                stream.height, stream.width = even.shape[:2]
            container.mux(stream.encode(_as_bt709(even)))
        container.mux(stream.encode())


def _as_bt709(rgb: Frame) -> av.VideoFrame:
    """A frame (H W 3) in the one YUV that players agree on, whatever the size, when it is named."""
    from av import VideoFrame
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    frame = VideoFrame.from_ndarray(rgb, format="rgb24")
    frame = frame.reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
    )
    frame.color_trc, frame.color_primaries = ColorTrc.BT709, ColorPrimaries.BT709
    return frame


def _write_gif(path: Path, frames: Iterator[Frame], fps: float) -> None:
    images = [Image.fromarray(frame) for frame in frames]
    delays = [10 * ticks for ticks in _delays(len(images), 100 / fps)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=delays, loop=0)


def _write_webp(path: Path, frames: Iterator[Frame], fps: float) -> None:
    images = [Image.fromarray(frame) for frame in frames]
    delays = _delays(len(images), 1000 / fps)
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=delays, loop=0, quality=90
    )


def _delays(count: int, ticks: float) -> list[int]:
    """Whole ticks per frame whose sum stays true to the frame rate."""
    ends = np.round(np.arange(count + 1) * ticks).astype(int)
    return [max(1, int(delay)) for delay in np.diff(ends)]


def _write_folder(path: Path, frames: Iterator[Frame], fps: float) -> None:
    path.mkdir()
    told = PngInfo()
    told.add_text("fps", f"{fps:g}")  # read back by FolderSource
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"frame_{number:05d}.png", pnginfo=told)
