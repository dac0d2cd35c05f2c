"""Small files that claim to hold much: each must be refused, in one line, in little time and memory."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgc_video.jobs.job_list import read_jobs
from hgc_video.jobs.shot import read_shot
from hgc_video.media.video import open_clip
from hgc_video.models.single_file import shapes_of
from hgc_video.plan.calibration import load_calibration
from hgc_video.plan.policies.searched import load_coded_schedule
from hgc_video.plan.schedule import Schedule


@dataclass(frozen=True)
class Bomb:
    """What writes a file, and what reads it."""

    write: Callable[[Path], Any]
    read: Callable[[Path], Any]

    def check(self, path: Path) -> None:
        """Reads the file; AssertionError where it is not refused."""
        self.read(path)
        raise AssertionError("it was not refused")


def good_bombs(folder: Path) -> list[tuple[Path, Bomb]]:
    """Every bomb, written into a folder."""
    folder.mkdir(exist_ok=True)
    made = []
    for name, bomb in BOMBS.items():
        bomb.write(folder / name)
        made.append((folder / name, bomb))
    return made


def _clip(path: Path) -> None:
    """Reads the facts and the first frame of a clip."""
    next(iter(open_clip(path).frames([0])))


def _png(path: Path, width: int, height: int, *, whole: bool) -> None:
    """A PNG of zeros in one bit a pixel; where not `whole` it says that it is large and is not."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pack, rows = zlib.compressobj(9), []
    line = bytes(1 + (width + 7) // 8)
    for _ in range(height if whole else 1):
        rows.append(pack.compress(line))
    data = b"".join([*rows, pack.flush()])
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def _gif(path: Path, size: tuple[int, int], delays: list[int]) -> None:
    """A GIF of frames of one pixel on a screen of this size, each shown for so many 1/100 s."""
    data = b"GIF89a" + struct.pack("<HHBBB", *size, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    for number, delay in enumerate(delays):
        data += b"\x21\xf9\x04" + struct.pack("<BHB", 0, delay, 0) + b"\x00"
        data += (
            b"\x2c" + struct.pack("<HHHHB", number % size[0], 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
        )
    path.write_bytes(data + b"\x3b")


def _bmp(path: Path) -> None:
    head = struct.pack("<IiiHHIIiiII", 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head)


def _webp(path: Path) -> None:
    """A lossless WebP of 16384 x 16384 pixels that are all the same."""
    bits = 16383 | 16383 << 14
    data = b"\x2f" + struct.pack("<I", bits) + bytes(12)
    chunk = b"VP8L" + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk)


def _movie(path: Path, *, size: int = 64, gap: int = 0) -> None:
    """A movie whose header claims a size, or whose last frame comes long after the others."""
    import av

    from tests.media.barcoded import draw

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg" if size > 64 else "libx264", rate=24)
        stream.height = stream.width = min(size, 64)
        stream.pix_fmt = "yuvj420p" if size > 64 else "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(4):
            frame = av.VideoFrame.from_ndarray(draw(number, 64, 64), format="rgb24")
            frame.pts = number + gap * (number == 3)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if size > 64:  # in every JPEG frame: marker SOF0, length, depth, height, width
        data = bytearray(path.read_bytes())
        at = data.find(b"\xff\xc0")
        while at >= 0:
            data[at + 5 : at + 9] = struct.pack(">HH", size, size)
            at = data.find(b"\xff\xc0", at + 1)
        path.write_bytes(bytes(data))


def _avi(path: Path) -> None:
    """A raw AVI header that claims 10^9 frames, and holds one."""
    _movie(path)
    data = bytearray(path.read_bytes())
    at = data.find(b"avih")
    data[at + 24 : at + 28] = struct.pack("<I", 10**9)
    at = data.find(b"strh")
    data[at + 40 : at + 44] = struct.pack("<I", 10**9)
    path.write_bytes(bytes(data))


def _raw_movie(path: Path) -> None:
    path.write_bytes(b"YUV4MPEG2 W40000 H40000 F25:1 Ip A1:1 C420jpeg\nFRAME\n" + bytes(1000))


def _jobs(path: Path) -> None:
    list(read_jobs(path).jobs())


def _printed(path: Path) -> None:
    Schedule.from_yaml(path.read_text())


def _matrix(path: Path) -> None:
    """A list that stands for 10^12 jobs."""
    values = {name: list(range(1000)) for name in ("seed", "num_frames", "height", "width")}
    path.write_text(json.dumps({"jobs": [{"prompt": "a"}], "matrix": values}))


def _laughs(head: str) -> str:
    """Ten lists, each of which holds the one before ten times, under the last key of `head`."""
    lines = ["  - &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"  - &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join([head, *lines])


def _safetensors(path: Path, length: int, header: bytes = b"{}") -> None:
    path.write_bytes(struct.pack("<Q", length) + header)


_WIDE = json.dumps(
    {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}
).encode()
_DEEP = "[" * 3000

BOMBS: dict[str, Bomb] = {
    "claims.png": Bomb(lambda p: _png(p, 2**31 - 1, 2**31 - 1, whole=False), _clip),
    "zeros.png": Bomb(lambda p: _png(p, 30000, 30000, whole=True), _clip),
    "just-over.png": Bomb(lambda p: _png(p, 12000, 12000, whole=True), _clip),
    "screen.gif": Bomb(lambda p: _gif(p, (65535, 65535), [5]), _clip),
    "long.gif": Bomb(lambda p: _gif(p, (8, 8), [2] + [65535] * 3000), _clip),
    "claims.bmp": Bomb(_bmp, _clip),
    "zeros.webp": Bomb(_webp, _clip),
    "claims.mov": Bomb(lambda p: _movie(p, size=65000), _clip),
    "gap.mp4": Bomb(lambda p: _movie(p, gap=4_000_000), _clip),
    "gap.mkv": Bomb(lambda p: _movie(p, gap=2**33), _clip),
    "claims.y4m": Bomb(_raw_movie, _clip),
    "laughs.yaml": Bomb(lambda p: p.write_text(_laughs("prompt:")), read_shot),
    "laughs-list.yaml": Bomb(lambda p: p.write_text(_laughs("jobs: [{prompt: a}]\nseeds:")), _jobs),
    "laughs-schedule.yaml": Bomb(lambda p: p.write_text(_laughs("codes:")), load_coded_schedule),
    "laughs-printed.yaml": Bomb(lambda p: p.write_text(_laughs("steps:")), _printed),
    "laughs-calibration.yaml": Bomb(lambda p: p.write_text(_laughs("sensitivity:")), load_calibration),
    "deep.yaml": Bomb(lambda p: p.write_text(f"prompt: {_DEEP}"), read_shot),
    "deep-schedule.yaml": Bomb(lambda p: p.write_text(_DEEP), load_coded_schedule),
    "deep-calibration.yaml": Bomb(lambda p: p.write_text(_DEEP), load_calibration),
    "itself.yaml": Bomb(lambda p: p.write_text("prompt: &a [*a]"), lambda p: read_shot(p).checked()),
    "digits.yaml": Bomb(lambda p: p.write_text("seed: " + "9" * 200000), read_shot),
    "large.yaml": Bomb(lambda p: p.write_text("# " + "x" * 2**21), read_shot),
    "matrix.yaml": Bomb(_matrix, _jobs),
    "seeds.yaml": Bomb(lambda p: p.write_text("jobs: [{prompt: a}]\nseeds: 1000000000"), _jobs),
    "length.safetensors": Bomb(lambda p: _safetensors(p, 2**63 - 1), shapes_of),
    "header.safetensors": Bomb(lambda p: _safetensors(p, 2**40), shapes_of),
    "shape.safetensors": Bomb(lambda p: _safetensors(p, len(_WIDE), _WIDE + bytes(4)), shapes_of),
}  # fmt: skip
