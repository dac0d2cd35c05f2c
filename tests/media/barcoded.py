"""Clips whose frames tell their own number, written by PyAV in the formats that people have.

The upper quarter of a frame is an 8-bit barcode of its number: bit b is white in columns b*w/8 to
(b+1)*w/8, least significant first. A red patch lies left below the middle, a blue one bottom right.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from hgc_video.media.thread_priority import scheduling_kept

SIZE = 128


def draw(number: int, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """Frame (H W 3) uint8 of a number."""
    frame = np.full((height, width, 3), 60, np.uint8)
    for bit in range(8):
        columns = slice(bit * width // 8, (bit + 1) * width // 8)
        frame[: height // 4, columns] = 255 * (number >> bit & 1)
    frame[height // 2 : height * 5 // 8, : width // 4] = (220, 20, 20)
    frame[height * 7 // 8 :, width * 3 // 4 :] = (20, 20, 220)
    return frame


def read(frame: np.ndarray) -> int:
    """The number that a frame (H W 3) tells."""
    height, width = frame.shape[:2]
    band = frame[height // 16 : height // 5].mean((0, 2))
    bits = [band[round((b + 0.3) * width / 8) : round((b + 0.7) * width / 8)] for b in range(8)]
    return sum(1 << b for b, columns in enumerate(bits) if columns.mean() > 127)


def is_damaged(frame: np.ndarray) -> bool:
    """Whether a frame (H W 3) shows other than what was drawn."""
    return bool(np.abs(frame.astype(int) - draw(read(frame), *frame.shape[:2])).mean() > 12)


@dataclass(frozen=True)
class Format:
    """How a clip is written: codec, x264's or x265's options, container by suffix."""

    suffix: str
    codec: str
    options: str = ""
    pix_fmt: str = "yuv420p"
    b_frames: int = 0


X265 = "log-level=none:pools=1:frame-threads=1"
OPEN_GOPS = "open-gop=1:keyint=20:min-keyint=20:scenecut=0:bframes=3:b-adapt=0:no-b-pyramid=1"
FORMATS = {
    "h264 in mp4": Format("mp4", "libx264", "keyint=250:bframes=3"),
    "h264 in mp4, open GOPs": Format("mp4", "libx264", "open-gop=1:keyint=20:bframes=3:scenecut=0"),
    "h264 in mkv, open GOPs": Format("mkv", "libx264", "open-gop=1:keyint=20:bframes=3:scenecut=0"),
    "h264 in mov, intra refresh": Format("mov", "libx264", "intra-refresh=1:keyint=20:bframes=0"),
    "h264 in ts": Format("ts", "libx264", "keyint=20:bframes=3"),
    "hevc in mp4, open GOPs": Format("mp4", "libx265", f"{X265}:{OPEN_GOPS}"),
    "hevc in mkv, open GOPs": Format("mkv", "libx265", f"{X265}:{OPEN_GOPS}"),
    "hevc in ts": Format("ts", "libx265", f"{X265}:{OPEN_GOPS}"),
    "mpeg4 in avi, B frames": Format("avi", "mpeg4", b_frames=2),
    "mpeg2 in mpg": Format("mpg", "mpeg2video", b_frames=2),
    "mpeg2 in ts": Format("ts", "mpeg2video", b_frames=2),
    "wmv": Format("wmv", "wmv2"),
    "vp8 in webm": Format("webm", "libvpx"),
    "vp9 in webm": Format("webm", "libvpx-vp9"),
    "av1 in mp4": Format("mp4", "libsvtav1"),
    "av1 10 bit in webm": Format("webm", "libsvtav1", pix_fmt="yuv420p10le"),
    "h264 10 bit in mkv": Format("mkv", "libx264", "keyint=20:bframes=3", pix_fmt="yuv420p10le"),
    "hevc 10 bit in mkv": Format("mkv", "libx265", f"{X265}:{OPEN_GOPS}", pix_fmt="yuv420p10le"),
    "prores in mov": Format("mov", "prores_ks", pix_fmt="yuv422p10le"),
    "ffv1 in mkv": Format("mkv", "ffv1", pix_fmt="yuv444p"),
    "flv": Format("flv", "flv"),
    "mjpeg in mov": Format("mov", "mjpeg", pix_fmt="yuvj420p"),
    "raw h264": Format("h264", "libx264", "keyint=20:bframes=0"),
}


def write(
    path: Path,
    written: Format,
    numbers: range | list[int] = range(60),
    *,
    fps: int = 24,
    seconds: list[float] | None = None,
    size: tuple[int, int] = (SIZE, SIZE),
    sample_aspect: Fraction | None = None,
    header_first: bool = False,
) -> Path:
    """Writes frames with these numbers at a constant rate, or to be shown from `seconds` on."""
    first = {"movflags": "+faststart"} if header_first and path.suffix == ".mp4" else {}
    with av.open(str(path), "w", container_options=first) as container:
        stream = container.add_stream(written.codec, rate=fps)
        stream.height, stream.width = size
        stream.pix_fmt = written.pix_fmt
        stream.codec_context.thread_count = 1
        if sample_aspect is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect
        if written.b_frames:
            stream.codec_context.max_b_frames = written.b_frames
        stream.options = _options(written)
        if seconds is not None:
            stream.codec_context.time_base = Fraction(1, 12000)
        for at, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(draw(number, *size), format="rgb24")
            if seconds is not None:
                frame.pts, frame.time_base = round(seconds[at] * 12000), Fraction(1, 12000)
            with scheduling_kept():
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _options(written: Format) -> dict[str, str]:
    if written.codec in ("libx264", "libx265"):
        return {"preset": "veryfast", "crf": "16", f"{written.codec[3:]}-params": written.options}
    if written.codec == "libsvtav1":
        return {"preset": "12", "crf": "20", "svtav1-params": "lp=1"}
    if written.codec.startswith("libvpx"):  # with frames that are never shown
        return {
            "auto-alt-ref": "1",
            "lag-in-frames": "16",
            "deadline": "good",
            "cpu-used": "5",
            "b": "1M",
        }
    return {"qscale": "2", "b": "2M"}


def trim(source: Path, path: Path, start_s: float) -> Path:
    """A copy of the packets from the key frame before `start_s` on, with an edit list that hides what
    comes before it, as tools do that cut without encoding."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        old.seek(int(start_s * av.time_base))
        template = old.streams.video[0]
        stream = new.add_stream_from_template(template)
        start = round(start_s / template.time_base)
        for packet in old.demux(template):
            if packet.size:
                packet.pts, packet.dts = packet.pts - start, packet.dts - start
                packet.stream = stream
                new.mux(packet)
    return path


def cut_off(source: Path, path: Path, packets: int) -> Path:
    """A file up to the middle of a packet, as an aborted download leaves it."""
    with av.open(str(source)) as container:
        last = [packet for packet in container.demux(video=0) if packet.size][packets]
    path.write_bytes(source.read_bytes()[: last.pos + last.size // 2])
    return path


def cut_head(source: Path, path: Path, share: float) -> Path:
    """The last part of a file, whole packets of MPEG-TS, as a recording leaves it that joins a broadcast."""
    data = source.read_bytes()
    path.write_bytes(data[188 * int(share * len(data) / 188) :])
    return path


def set_matrix(path: Path, matrix: tuple[int, ...]) -> Path:
    """Writes a display matrix (a b c d of x' = a x + c y, y' = b x + d y) into an mp4's track header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16  # version 0: flags, times, ids, layer, volume
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path
