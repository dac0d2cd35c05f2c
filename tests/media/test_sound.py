"""Sound that goes with the frames taken: the right piece, whole, copied where the container allows."""

from __future__ import annotations

import av
import numpy as np
import pytest

from hgc_video.errors import HGCVideoWarning, InputError, VideoError
from hgc_video.media.sound import Span, _until_damaged, has_sound, sound_of_file, sound_of_frames
from hgc_video.media.video import probe, write_video
from hgc_video.media.write import Extras
from tests.media import barcoded, sounding

FPS, SECONDS = 12, 4
MIDDLES = (0.25, 0.75, 1.25, 1.75)


def codec_of(path):
    with av.open(str(path)) as container:
        return container.streams.audio[0].codec_context.codec.canonical_name


@pytest.fixture(scope="module")
def frames():
    return np.stack([barcoded.draw(number, 64, 64) for number in range(FPS * SECONDS)])


@pytest.fixture(scope="module")
def silent(frames, tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("sound") / "silent.mp4", frames, FPS)


@pytest.mark.parametrize("out", ["mp4", "webm"])
@pytest.mark.parametrize(
    ("codec", "suffix", "rate", "kept"),
    [
        ("aac", "mp4", 44100, "mp4"), ("aac", "ts", 44100, "mp4"), ("libmp3lame", "mkv", 44100, "mp4"),
        ("libopus", "mkv", 48000, "mp4 webm"), ("pcm_s16le", "mkv", 22050, ""),
        ("ac3", "mkv", 48000, "mp4"),
    ],
)  # fmt: skip
def test_the_sound_to_the_frames_taken(silent, frames, tmp_path, codec, suffix, rate, kept, out):
    """Frames 18 to 41 of 48, so from 1.5 s on; a TS begins at a time of its own."""
    source = sounding.put_under(silent, tmp_path / f"in.{suffix}", codec, rate)
    info, taken = probe(source), range(18, 42)
    sound = sound_of_frames(source, taken, source_fps=info.fps, fps=FPS, begins_s=info.begins_s)
    path = write_video(tmp_path / f"out.{out}", frames[18:42], FPS, Extras(sound=sound))
    assert [sounding.tone_at(path, at) for at in MIDDLES] == [3, 4, 5, 6]
    edges = [sounding.tone_at(path, at) for at in (0.44, 0.56, 1.44, 1.56)]
    assert edges == [3, 4, 5, 6], "no more than a twentieth of a second early or late"
    assert sounding.seconds_of(path) == pytest.approx(2, abs=0.06)
    assert probe(path).num_frames == 24 and probe(path).duration_s == pytest.approx(2)
    assert (codec_of(path) == codec_of(source)) == (out in kept)


def test_a_looped_clip_has_looped_sound(silent, frames, tmp_path):
    source = sounding.put_under(silent, tmp_path / "in.mp4")
    taken = [*range(6, 18), *range(6, 18)]
    sound = sound_of_frames(source, taken, source_fps=FPS, fps=FPS, begins_s=0)
    assert sound.spans == (Span(0.5, 1.5), Span(0.5, 1.5))
    path = write_video(tmp_path / "out.mp4", frames[taken], FPS, Extras(sound=sound))
    assert [sounding.tone_at(path, at) for at in MIDDLES] == [1, 2, 1, 2]
    assert sounding.seconds_of(path) == pytest.approx(2, abs=0.06)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.wav", "pcm_s16le"), ("a.mp3", "libmp3lame"), ("a.m4a", "aac")]
)
def test_the_sound_of_another_file(frames, tmp_path, name, codec):
    other = sounding.write(tmp_path / name, 3, codec)
    path = write_video(
        tmp_path / "out.mp4", frames[:24], FPS, Extras(sound=sound_of_file(other, 2.0))
    )
    assert [sounding.tone_at(path, at) for at in MIDDLES] == [0, 1, 2, 3]
    assert sounding.seconds_of(path) == pytest.approx(2, abs=0.06)


def test_sound_shorter_than_the_picture_ends_before_it(frames, tmp_path):
    other = sounding.write(tmp_path / "a.wav", 1, "pcm_s16le")
    path = write_video(
        tmp_path / "out.mp4", frames[:24], FPS, Extras(sound=sound_of_file(other, 2.0))
    )
    assert sounding.seconds_of(path) == pytest.approx(1, abs=0.06)
    assert probe(path).num_frames == 24


def test_files_without_sound(silent, frames, tmp_path):
    assert not has_sound(silent)
    with pytest.raises(InputError, match="has no sound"):
        sound_of_file(silent, 1)
    with pytest.raises(VideoError, match="no file"):
        sound_of_file(tmp_path / "none.wav", 1)
    other = sounding.write(tmp_path / "a.wav", 1, "pcm_s16le")
    with pytest.raises(InputError, match="cannot hold sound"):
        write_video(tmp_path / "a.gif", frames, FPS, Extras(sound=sound_of_file(other, 1)))
    assert not (tmp_path / "a.gif").exists()


def test_a_sound_that_breaks_off_costs_no_picture(tmp_path, silent, frames):
    """What comes after the damage is left out, and told."""
    whole = sounding.put_under(silent, tmp_path / "a.mkv")
    data = bytearray(whole.read_bytes())
    middle = len(data) // 2
    data[middle:] = np.random.default_rng(0).bytes(len(data) - middle)
    whole.write_bytes(bytes(data))
    sound = sound_of_file(whole, len(frames) / 24)
    made = write_video(tmp_path / "b.mp4", frames, 24, extras=Extras(sound=sound))
    assert probe(made).num_frames == len(frames)


def test_packets_up_to_the_damage_are_kept(tmp_path):
    def packets():
        yield 0.0, "a packet"
        raise av.error.InvalidDataError(1, "Invalid data found")

    with pytest.warns(HGCVideoWarning, match="is damaged and ends early"):
        assert list(_until_damaged(packets(), tmp_path / "a.mp3")) == [(0.0, "a packet")]
