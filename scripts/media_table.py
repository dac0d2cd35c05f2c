#!/usr/bin/env python
"""Reads clips of many formats whose frames tell their number, and prints the frames got beside those wanted.

The clips are drawn and written here (tests/media/barcoded.py), and those of a folder are read where it is
at hand. `--save` keeps what was got, `--before` shows it as a column: to compare two versions, run the first
one with its package in PYTHONPATH and --save, then the second with --before.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from hgc_video.errors import VideoError  # noqa: E402
from hgc_video.media.video import iter_frames, probe, read_frames, write_video  # noqa: E402
from tests.media import barcoded, sounding  # noqa: E402

Row = tuple[str, str, Callable[[], str]]  # what is read, what is wanted, how to get it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = ROOT.parent / "shared" / "data" / "media"
    parser.add_argument("--data", type=Path, default=shared, help="folder of given clips")
    parser.add_argument("--save", type=Path, help="JSON file for what was got")
    parser.add_argument("--before", type=Path, help="such a file of another version")
    options = parser.parse_args()
    before = json.loads(options.before.read_text()) if options.before else {}
    warnings.simplefilter("ignore")
    got = {}
    print("| clip | wanted | before | now |" if before else "| clip | wanted | got |")
    print("|---|---|---|---|" if before else "|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, wanted, read in [*_given(options.data), *_own(Path(folder))]:
            got[name] = _tried(read)
            columns = [name, wanted, *([before.get(name, "")] if before else []), got[name]]
            print(f"| {' | '.join(columns)} |", flush=True)
    if options.save:
        options.save.write_text(json.dumps(got, indent=2) + "\n")


def _tried(read: Callable[[], str]) -> str:
    try:
        return read()
    except VideoError as error:
        line = " ".join(str(error).split())
        return f"refused: {line[line.rfind('/') + 1 :] if '/' in line else line}"
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:60]}"


def _given(folder: Path) -> Iterator[Row]:
    """The clips of the folder that its README describes."""
    if not folder.is_dir():
        print(f"(no clips at {folder}: those are left out)", file=sys.stderr)
        return
    numbers = {
        "a.mp4": range(60), "h60.mkv": range(0, 200, 5), "trim.mp4": range(24, 60),
        "m4.avi": range(0, 60, 2), "plain.ts": range(60),
    }  # fmt: skip
    strides = {"h60.mkv": 5, "m4.avi": 2}
    for name, wanted in numbers.items():
        yield _numbered(name, folder / name, list(wanted), strides.get(name, 1))
    yield "vfr.mp4", "at 1, 2, 3 s: 27, 33, 39", lambda: _at_seconds(folder / "vfr.mp4")
    yield (
        "sar_circle.mp4",
        "circle 1.00 as wide as high",
        lambda: _circle(folder / "sar_circle.mp4"),
    )
    yield "hflip.mp4", "red at 0.56 down, 0.87 across", lambda: _red(folder / "hflip.mp4")


def _own(folder: Path) -> Iterator[Row]:
    """Clips of every format that PyAV writes, and what people do to them."""
    formats = barcoded.FORMATS
    for name, written in formats.items():
        path = folder / f"{name.replace(' ', '_')}.{written.suffix}"
        barcoded.write(path, written, range(100))
        yield _numbered(name, path, list(range(0, 100, 5)), 5)
    opened = formats["h264 in mp4, open GOPs"]
    whole = barcoded.write(folder / "whole.mp4", opened, range(90))
    trimmed = barcoded.trim(whole, folder / "trimmed.mp4", 31 / 24)
    yield _numbered("h264 in mp4, cut by edit list", trimmed, list(range(31, 90)), 1)
    for name in ("h264 in mp4, open GOPs", "h264 in mkv, open GOPs", "h264 in ts"):
        written = formats[name]
        whole = barcoded.write(folder / f"w.{written.suffix}", written, header_first=True)
        broken = barcoded.cut_off(whole, folder / f"broken.{written.suffix}", 40)
        yield f"{name}, broken off", "0..40 or less", lambda path=broken: _told(path)
    whole = barcoded.write(folder / "w.ts", formats["h264 in ts"])
    tail = barcoded.cut_head(whole, folder / "tail.ts", 0.4)
    yield "h264 in ts, beginning cut off", "40..59", lambda: _told(tail)
    seconds = [i / 48 for i in range(24)] + [0.5 + i / 6 for i in range(24)]
    for name in ("h264 in mp4", "h264 in mkv, open GOPs", "vp9 in webm"):
        path = folder / f"vfr.{formats[name].suffix}"
        barcoded.write(path, formats[name], range(48), fps=48, seconds=seconds)
        yield f"{name}, variable rate", "at 1, 2, 3 s: 27, 33, 39", lambda p=path: _at_seconds(p)
    yield from _small_and_odd(folder)
    yield from _spoilt(folder)
    yield from _refused(folder)
    yield from _shown(folder)


def _small_and_odd(folder: Path) -> Iterator[Row]:
    """Odd sizes, one frame, animations."""
    for suffix, codec, pix_fmt in (
        ("webm", "libvpx-vp9", "yuv420p"), ("mkv", "ffv1", "yuv420p"), ("mov", "mjpeg", "yuvj420p"),
    ):  # fmt: skip
        written = barcoded.Format(suffix, codec, pix_fmt=pix_fmt)
        path = barcoded.write(folder / f"odd.{suffix}", written, range(5), size=(65, 97))
        yield _numbered(f"{codec} in {suffix}, 97x65", path, list(range(5)), 1)
    one = barcoded.write(folder / "one.mp4", barcoded.FORMATS["h264 in mp4"], [77])
    yield _numbered("h264 in mp4, one frame", one, [77], 1)
    images = [Image.fromarray(barcoded.draw(number)) for number in range(20)]
    delays = [40 * (1 + 2 * (number % 7 == 3)) for number in range(20)]
    shown = [number for number, delay in enumerate(delays) for _ in range(delay // 40)]
    for name in ("gif", "webp"):
        path = folder / f"animation.{name}"
        images[0].save(
            path, save_all=True, append_images=images[1:], loop=0, duration=delays, quality=90
        )
        yield _numbered(f"{name}, uneven delays", path, shown, 1)


def _spoilt(folder: Path) -> Iterator[Row]:
    """Files whose last third is noise."""
    names = ("h264 in mp4", "hevc in mp4, open GOPs", "h264 in ts", "vp9 in webm")
    for number, name in enumerate(names):
        written = barcoded.FORMATS[name]
        path = folder / f"spoilt{number}.{written.suffix}"
        data = bytearray(barcoded.write(path, written, header_first=True).read_bytes())
        good = len(data) * 2 // 3
        data[good:] = (
            np.random.default_rng(0).integers(0, 256, len(data) - good, np.uint8).tobytes()
        )
        path.write_bytes(data)
        wanted = "as far as it goes, the rest told or left out"
        yield f"{name}, noise in its last third", wanted, lambda path=path: _with_lines(path)


def _refused(folder: Path) -> Iterator[Row]:
    """What is no clip."""
    (folder / "nothing.mp4").touch()
    (folder / "text.mp4").write_text("this is no video " * 99)
    (folder / "text.gif").write_text("this is no image")
    (folder / "empty").mkdir()
    barcoded.cut_off(
        barcoded.write(folder / "late.mp4", barcoded.FORMATS["h264 in mp4"]),
        folder / "no_index.mp4",
        20,
    )
    sounding.write(folder / "sound.m4a", 1, "aac")
    for name, what in {
        "none.mp4": "no such file", "nothing.mp4": "zero bytes", "text.mp4": "text named .mp4",
        "text.gif": "text named .gif", "empty": "an empty folder", "sound.m4a": "sound alone",
        "no_index.mp4": "mp4 broken off, its index was at the end",
    }.items():  # fmt: skip
        yield what, "refused in one line", lambda path=folder / name: _told(path)


def _with_lines(path: Path) -> str:
    """What is read, and the warnings in short."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        told = _told(path)
    lines = [str(warning.message).rpartition('" ')[2] for warning in said]
    return "; ".join([told, *lines])


def _shown(folder: Path) -> Iterator[Row]:
    """Geometry and colours."""
    plain = barcoded.FORMATS["h264 in mp4"]
    matrices = {
        "mirrored": (-1, 0, 0, 1), "upside down": (1, 0, 0, -1), "turned by 90": (0, 1, -1, 0),
        "turned by 180": (-1, 0, 0, -1), "turned by 270": (0, -1, 1, 0),
        "mirrored, turned by 90": (0, 1, 1, 0), "mirrored, turned by 270": (0, -1, -1, 0),
    }  # fmt: skip
    for name, matrix in matrices.items():
        path = folder / f"{name.replace(chr(32), chr(95))}.mp4"
        barcoded.write(path, plain, range(3), size=(128, 192))
        barcoded.set_matrix(path, matrix)
        a, b, c, d = matrix
        down, across = (1 + b * -0.75 + d * 0.125) / 2, (1 + a * -0.75 + c * 0.125) / 2
        yield (
            f"display matrix: {name}",
            f"red at {down:.2f} down, {across:.2f} across",
            (lambda path=path: _red(path)),
        )
    for aspect in (Fraction(64, 45), Fraction(3, 4)):
        path = folder / f"sar{aspect.numerator}.mp4"
        barcoded.write(path, plain, range(3), size=(144, 180), sample_aspect=aspect)
        yield (
            f"sample aspect {aspect}",
            f"{float(180 / 144 * aspect):.2f} as wide as high",
            (lambda path=path: f"{probe(path).width / probe(path).height:.2f} as wide as high"),
        )
    yield "mp4 written at 128x128, tags", "1 1 1 1 (BT.709)", lambda: _tags(folder / "t.mp4")


def _numbered(name: str, path: Path, wanted: list[int], stride: int) -> Row:
    return name, _brief(wanted), lambda: _brief(_numbers(path, stride), wanted)


def _numbers(path: Path, stride: int) -> list[int]:
    count = probe(path).num_frames
    return [barcoded.read(frame) for frame in iter_frames(path, indices=range(0, count, stride))]


def _brief(numbers: list[int], wanted: list[int] | None = None) -> str:
    """A run of numbers in short; where they are not as wanted, how many frames are wrong."""
    if wanted is not None and numbers != wanted:
        pairs = zip(numbers, wanted, strict=False)
        wrong = sum(a != b for a, b in pairs) + abs(len(numbers) - len(wanted))
        return f"{wrong} of {len(wanted)} wrong: {_runs(numbers)}"
    return f"{len(numbers)} frames: {_runs(numbers)}"


def _runs(numbers: list[int]) -> str:
    """Equal steps joined, as 0, 5..95 or 59x24 for a frame that comes 24 times."""
    parts, at = [], 0
    while at < len(numbers):
        end = at + 1
        step = numbers[end] - numbers[at] if end < len(numbers) else 0
        while end < len(numbers) and numbers[end] - numbers[end - 1] == step:
            end += 1
        long = end - at > 2
        if long and step == 0:
            parts.append(f"{numbers[at]}x{end - at}")
        elif long:
            parts.append(
                f"{numbers[at]}..{numbers[end - 1]}" + (f" by {step}" if step != 1 else "")
            )
        else:
            end = at + 1
            parts.append(str(numbers[at]))
        at = end
    return ", ".join(parts[:8]) + (" ..." if len(parts) > 8 else "")


def _told(path: Path) -> str:
    return _brief(_numbers(path, 1))


def _at_seconds(path: Path) -> str:
    fps, count = probe(path).fps, probe(path).num_frames
    indices = [min(count - 1, round(second * fps)) for second in (1, 2, 3)]
    shown = [barcoded.read(frame) for frame in iter_frames(path, indices=indices)]
    return f"at 1, 2, 3 s: {', '.join(map(str, shown))}"


def _red(path: Path) -> str:
    frame = read_frames(path, indices=[0])[0].astype(int)
    patch = np.argwhere((frame[..., 0] > 150) & (frame[..., 2] < 90))
    down, across = patch.mean(0) / frame.shape[:2]
    return f"red at {down:.2f} down, {across:.2f} across"


def _circle(path: Path) -> str:
    rows, columns = np.nonzero(read_frames(path, indices=[0])[0].min(-1) > 127)
    return f"circle {np.ptp(columns) / np.ptp(rows):.2f} as wide as high"


def _tags(path: Path) -> str:
    write_video(path, np.stack([barcoded.draw(at) for at in range(3)]), 8)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    tags = frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc
    return " ".join(map(str, tags)) + (" (BT.709)" if tags[0] == 1 else " (untagged)")


if __name__ == "__main__":
    main()
