"""Clips, images and sound: good ones, and how the package reads them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from hgc_video.media.metadata import read_text
from hgc_video.media.sound import Sound, Span, has_sound
from hgc_video.media.video import open_clip, write_video
from hgc_video.media.write import Extras

ROOT = Path(__file__).resolve().parents[2]
_MOST_FRAMES = 400  # that a check reads of what a damaged file claims to hold


def good_movies(folder: Path) -> list[Path]:
    """A short clip of every format that the tests write, and one with sound and an embedded configuration."""
    from tests.media.barcoded import FORMATS, write

    made = []
    for number, written in enumerate(FORMATS.values()):
        path = folder / f"{number:02}.{written.suffix}"
        made.append(write(path, written, range(24), size=(64, 64)))
    made.append(folder / "spoken.mp4")
    shutil.copy(ROOT / "examples" / "dance_pose.mp4", made[-1])
    return made


def good_images(folder: Path) -> list[Path]:
    """GIF, WebP and still images of every kind that is read, with eight and sixteen bits."""
    from tests.media.barcoded import draw

    frames = np.stack([draw(number, 64, 64) for number in range(6)])
    made = [
        write_video(folder / name, frames, 8, extras=Extras(text='{"format": 1}'))
        for name in ("a.gif", "a.webp")
    ]
    for name in ("a.png", "a.jpg", "a.bmp", "b.webp"):
        Image.fromarray(frames[0]).save(folder / name)
        made.append(folder / name)
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16).save(folder / "deep.png")
    Image.fromarray(frames[0]).convert("P").save(folder / "palette.png")
    rotated = Image.Exif()
    rotated[0x0112] = 6
    Image.fromarray(frames[0, :32]).save(folder / "turned.jpg", exif=rotated)
    return [*made, *(folder / name for name in ("deep.png", "palette.png", "turned.jpg"))]


def check_clip(path: Path) -> None:
    """Reads a clip's text, facts and frames, the last ones first, and its sound where it has any."""
    read_text(path)
    source = open_clip(path)
    info = source.info
    assert info.num_frames > 0 and info.height > 0 and info.width > 0
    assert 0 < info.fps < float("inf") and abs(info.begins_s) < float("inf")
    last = range(max(0, info.num_frames - 3), info.num_frames)
    first = range(min(info.num_frames, _MOST_FRAMES))
    for wanted in (last, first):
        count = 0
        for frame in source.frames(wanted):
            assert frame.shape == (info.height, info.width, 3) and frame.dtype == np.uint8
            count += 1
        assert count == len(wanted), f"{count} of {len(wanted)} frames came"


def check_sound(path: Path) -> None:
    """Writes a clip of three frames with the sound of a file."""
    if has_sound(path):
        sound = Sound(path, (Span(0.0, 0.2), Span(0.5, 0.6)))
        frames = np.zeros((3, 32, 32, 3), np.uint8)
        write_video(path.with_name("out.mp4"), frames, 8, extras=Extras(sound=sound))
        assert open_clip(path.with_name("out.mp4")).info.num_frames == 3


def good_sounds(folder: Path) -> list[Path]:
    """Files with sound: copied and encoded anew."""
    from tests.media.barcoded import FORMATS, write
    from tests.media.sounding import put_under
    from tests.media.sounding import write as write_sound

    silent = write(folder / "silent.mp4", FORMATS["h264 in mp4"], range(24), size=(64, 64))
    with_sound = [
        put_under(silent, folder / f"{codec}.{suffix}", codec, rate)
        for suffix, codec, rate in (
            ("mp4", "aac", 44100),
            ("mkv", "libopus", 48000),
            ("mov", "pcm_s16le", 44100),
        )
    ]
    silent.unlink()
    alone = [
        write_sound(folder / "a.mp3", 1, "libmp3lame"),
        write_sound(folder / "a.flac", 1, "flac"),
    ]
    return [path for path in (*with_sound, *alone) if path.is_file()]
