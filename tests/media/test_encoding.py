"""Codecs, quality and pixel formats: what is asked for is written, tagged as BT.709, or refused."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest

from hgc_video.errors import InputError
from hgc_video.media.encoding import Encoding
from hgc_video.media.video import check_output, probe, read_frames, write_video
from hgc_video.media.write import Extras
from tests.media import barcoded


@pytest.fixture(scope="module")
def frames():
    return np.stack([barcoded.draw(number, 64, 96) for number in range(7)])


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        (".mp4", "h264", "yuv444p"), (".mp4", "hevc", None), (".mp4", "hevc", "yuv420p10le"),
        (".mp4", "av1", None), (".webm", None, None), (".webm", "vp9", "yuv444p"), (".webm", "av1", None),
    ],
)  # fmt: skip
def test_every_encoding_keeps_frames_and_tags(frames, tmp_path, suffix, codec, pix_fmt):
    encoding = Encoding(codec, pix_fmt=pix_fmt)
    try:
        encoding.check(Path(f"a{suffix}"))
    except InputError as error:
        pytest.skip(str(error))
    path = write_video(tmp_path / f"a{suffix}", frames, 12, Extras(encoding=encoding))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.codec.canonical_name == (codec or "vp9")
        assert codec != "hevc" or stream.codec_context.codec_tag == "hvc1"
        frame = next(container.decode(stream))
    assert frame.format.name == (pix_fmt or "yuv420p")
    tags = frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc
    assert tags == (1, 1, 1, 1), "BT.709"
    assert (probe(path).num_frames, probe(path).fps) == (7, pytest.approx(12, rel=1e-3))
    assert [barcoded.read(frame) for frame in read_frames(path)] == list(range(7))
    assert not any(map(barcoded.is_damaged, read_frames(path)))


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="threads are listed on Linux alone"
)
@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_no_thread_becomes_a_real_time_one(frames, tmp_path, codec):
    """SVT-AV1 as root makes the calling thread one, for good: other programs then stand still."""
    seen = []

    def watched():
        for frame in frames:
            tasks = Path("/proc/self/task").iterdir()
            seen.extend(os.sched_getscheduler(int(task.name)) for task in tasks)
            yield frame

    before = os.sched_getscheduler(0)
    write_video(tmp_path / "a.mp4", watched(), 12, Extras(encoding=Encoding(codec)))
    assert set(seen) == {before} and os.sched_getscheduler(0) == before


@pytest.mark.parametrize("name", ["h264.mp4", "hevc.mp4", "av1.mp4", "vp9.webm"])
def test_a_clip_of_one_frame(frames, tmp_path, name):
    codec = name.partition(".")[0]
    told = Extras(encoding=Encoding(codec))
    for _ in range(3):
        assert probe(write_video(tmp_path / name, frames[:1], 12, told)).num_frames == 1
        assert barcoded.read(read_frames(tmp_path / name)[0]) == 0


def test_odd_sizes(tmp_path):
    frames = np.stack([barcoded.draw(number, 65, 97) for number in range(3)])
    for pix_fmt, size in ((None, (66, 98)), ("yuv444p", (65, 97))):
        told = Extras(encoding=Encoding(pix_fmt=pix_fmt))
        path = write_video(tmp_path / "a.mp4", frames, 12, told)
        assert (probe(path).height, probe(path).width) == size


def test_a_greater_crf_is_a_smaller_file(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    sizes = [
        write_video(tmp_path / "a.mp4", noise, 8, Extras(encoding=Encoding(crf=crf))).stat().st_size
        for crf in (0, 30, 51)
    ]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 4 * sizes[2]


@pytest.mark.parametrize(
    ("name", "encoding", "says"),
    [
        ("a.mp4", Encoding("vp9"), r'no codec "vp9" in .mp4: .*allowed: h264, hevc, av1'),
        ("a.webm", Encoding("h264"), r'no codec "h264" in .webm: .*allowed: vp9, av1'),
        ("a.mp4", Encoding(crf=52), "crf=52 is not possible for h264; give 0 to 51"),
        ("a.mp4", Encoding(pix_fmt="yuv420"), 'did you mean "yuv420p"'),
        ("a.gif", Encoding(crf=20), "crf=20 is for movies .*not for .gif files"),
        ("a", Encoding(pix_fmt="yuv420p"), "not for folders of PNGs"),
    ],
)
def test_what_cannot_be_encoded_is_refused_before_a_run(tmp_path, name, encoding, says):
    with pytest.raises(InputError, match=says):
        check_output(tmp_path / name, encoding)
    assert list(tmp_path.iterdir()) == []
