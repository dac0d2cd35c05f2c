"""Movies in the formats that people have: the frames that come are the frames that were asked for."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from hgc_video.errors import HGCVideoWarning, VideoError
from hgc_video.media.control import load_control
from hgc_video.media.frame_choice import plan_frames
from hgc_video.media.movies import Movie
from hgc_video.media.sound import has_sound
from hgc_video.media.video import iter_frames, probe, read_frames
from tests.media import barcoded

MP4 = barcoded.FORMATS["h264 in mp4"]
OPEN = barcoded.FORMATS["h264 in mp4, open GOPs"]


def numbers(path, indices=None):
    return [barcoded.read(frame) for frame in read_frames(path, indices=indices)]


@pytest.fixture(scope="module", params=barcoded.FORMATS)
def movie(request, tmp_path_factory):
    written = barcoded.FORMATS[request.param]
    path = tmp_path_factory.mktemp("movies") / f"clip.{written.suffix}"
    return barcoded.write(path, written, range(100))


@pytest.mark.parametrize(
    "indices",
    [range(100), range(0, 100, 2), range(0, 100, 40), range(61, 100, 5), [99], [70, 3, 3, 71, 12]],
    ids=str,
)
def test_every_format_gives_the_frames_asked_for(movie, indices):
    assert probe(movie).num_frames == 100
    assert probe(movie).fps == pytest.approx(24, abs=1e-3)
    assert numbers(movie, indices) == list(indices)


def test_no_format_gives_a_damaged_picture_after_a_seek(movie):
    frames = read_frames(movie, indices=[81, 45, 99, 20])
    assert not any(map(barcoded.is_damaged, frames))


@pytest.mark.parametrize("name", barcoded.FORMATS)
def test_a_movie_of_one_frame(tmp_path, name):
    written = barcoded.FORMATS[name]
    if written.codec == "libx265":  # it tells no time for a single frame with B frames
        written = replace(written, options="log-level=none:bframes=0")
    path = barcoded.write(tmp_path / f"clip.{written.suffix}", written, [77])
    assert probe(path).num_frames == 1 and numbers(path) == [77]


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [("webm", "libvpx-vp9", "yuv420p"), ("mkv", "ffv1", "yuv420p"), ("mov", "mjpeg", "yuvj420p"),
     ("mp4", "libx264", "yuv444p")],
)  # fmt: skip
def test_odd_sizes(tmp_path, suffix, codec, pix_fmt):
    written = barcoded.Format(suffix, codec, pix_fmt=pix_fmt)
    path = barcoded.write(tmp_path / f"clip.{suffix}", written, range(5), size=(65, 97))
    assert read_frames(path).shape == (5, 65, 97, 3)
    assert numbers(path) == list(range(5))
    assert not any(map(barcoded.is_damaged, read_frames(path)))


@pytest.mark.parametrize("name", ["gif", "webp"])
@pytest.mark.parametrize(
    "stays", [[1] * 20, [1, 1, 3, 1, 2, 1, 1, 5, 1, 1]], ids=["even", "uneven"]
)
def test_animations_of_pillow(tmp_path, name, stays):
    images = [Image.fromarray(barcoded.draw(number)) for number in range(len(stays))]
    images[0].save(
        tmp_path / f"a.{name}", save_all=True, append_images=images[1:], loop=0, quality=90,
        duration=[40 * ticks for ticks in stays],
    )  # fmt: skip
    shown = [number for number, ticks in enumerate(stays) for _ in range(ticks)]
    assert numbers(tmp_path / f"a.{name}") == shown
    assert numbers(tmp_path / f"a.{name}", [9, 2, 7]) == [shown[at] for at in (9, 2, 7)]
    assert probe(tmp_path / f"a.{name}").fps == pytest.approx(25)


def test_what_an_animation_draws_beyond_its_first_frame_is_left_out(tmp_path):
    """The third frame is moved to the right by 40 pixels, as a damaged or careless file has it."""
    path = tmp_path / "a.gif"
    images = [Image.fromarray(np.full((64, 64, 3), level, np.uint8)) for level in (10, 90, 200)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=100)
    data, at = bytearray(path.read_bytes()), -1
    for _ in range(3):
        at = data.index(b"\x2c\x00\x00\x00\x00\x40\x00\x40", at + 1)  # left 0, top 0, 64 by 64
    data[at + 1] = 40
    path.write_bytes(data)
    assert (probe(path).height, probe(path).width) == (64, 64)
    last = read_frames(path)[2]
    assert last.shape == (64, 64, 3)
    assert abs(int(last[0, 39, 0]) - 90) < 9 and abs(int(last[0, 40, 0]) - 200) < 9


def test_animations_of_ffmpeg(tmp_path):
    path = barcoded.write(tmp_path / "a.gif", barcoded.Format("gif", "gif", pix_fmt="rgb8"), fps=25)
    assert numbers(path) == list(range(60))


@pytest.mark.parametrize(
    "name",
    ["h264 in mp4", "hevc in mp4, open GOPs", "h264 in ts", "av1 in mp4", "vp9 in webm", "wmv"],
)
def test_a_spoilt_tail_is_never_taken_for_other_frames(tmp_path, name):
    """The last third of the file is noise: what comes before it is right, and what cannot be decoded is
    left out or told, in two lines at most."""
    written = barcoded.FORMATS[name]
    path = barcoded.write(tmp_path / f"a.{written.suffix}", written, header_first=True)
    data = bytearray(path.read_bytes())
    good = len(data) * 2 // 3
    data[good:] = np.random.default_rng(0).integers(0, 256, len(data) - good, np.uint8).tobytes()
    path.write_bytes(data)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = numbers(path)
    right = next((at for at, number in enumerate(found) if number != at), len(found))
    assert right >= 5
    frozen = [at for at, number in enumerate(found) if number != at]
    assert all(found[at] <= at for at in frozen)
    assert len(told) <= 2
    assert len(frozen) <= 3 or "cannot be decoded" in str(told[-1].message)


@pytest.mark.parametrize(("transfer", "kind"), [(16, "PQ"), (18, "HLG"), (1, None)])
def test_hdr_is_told(tmp_path, transfer, kind):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx265", rate=8)
        stream.height = stream.width = 128
        stream.pix_fmt, stream.options = "yuv420p10le", {"x265-params": "log-level=none"}
        stream.codec_context.color_trc = transfer
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(barcoded.draw(number), format="rgb24")
            frame = frame.reformat(format="yuv420p10le")
            frame.color_trc = transfer
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert numbers(tmp_path / "a.mp4") == [0, 1, 2]
    said = {str(warning.message) for warning in told}
    assert len(said) == (kind is not None)
    assert all(f"is an HDR video ({kind})" in line for line in said)


def test_a_clip_cut_without_encoding_begins_where_it_was_cut(tmp_path):
    whole = barcoded.write(tmp_path / "whole.mp4", OPEN, range(90))
    cut = barcoded.trim(whole, tmp_path / "cut.mp4", 31 / 24)
    assert numbers(cut) == list(range(31, 90))
    assert numbers(cut, range(1, 59, 9)) == list(range(32, 90, 9))
    assert probe(cut).fps == pytest.approx(24)


@pytest.mark.parametrize(
    ("name", "declares"),
    [
        ("h264 in mp4, open GOPs", True), ("h264 in mkv, open GOPs", False), ("h264 in ts", False),
        ("mpeg4 in avi, B frames", False), ("hevc in mkv, open GOPs", False),
    ],
)  # fmt: skip
def test_a_file_that_breaks_off_ends_there(tmp_path, name, declares):
    written = barcoded.FORMATS[name]
    whole = barcoded.write(tmp_path / f"whole.{written.suffix}", written, header_first=True)
    broken = barcoded.cut_off(whole, tmp_path / f"broken.{written.suffix}", 40)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        count = probe(broken).num_frames
        found = numbers(broken)
    assert 38 <= count <= 42
    assert found[:36] == list(range(36))
    # Packets come in the order decoded: of the last few frames one in between may be missing.
    assert all(0 <= at - number <= 3 for at, number in enumerate(found))
    if declares:
        assert f"broken off: {count} of its 60 frames" in str(told[0].message)


def test_an_mp4_that_broke_off_before_its_index_is_refused(tmp_path):
    whole = barcoded.write(tmp_path / "whole.mp4", MP4)
    with pytest.raises(VideoError, match="is an mp4 without its index: it broke off while"):
        probe(barcoded.cut_off(whole, tmp_path / "broken.mp4", 40))


def test_a_recording_that_joins_a_broadcast_begins_with_its_first_whole_frame(tmp_path):
    whole = barcoded.write(tmp_path / "whole.ts", barcoded.FORMATS["h264 in ts"])
    tail = barcoded.cut_head(whole, tmp_path / "tail.ts", 0.4)
    found = numbers(tail)
    assert 20 <= found[0] < 41
    assert found == list(range(found[0], 60))
    assert not any(map(barcoded.is_damaged, read_frames(tail)))


def test_a_frame_that_cannot_be_decoded_is_the_one_before_it_and_said(tmp_path):
    path = barcoded.write(tmp_path / "clip.mp4", barcoded.FORMATS["av1 in mp4"])
    with av.open(str(path)) as container:
        packets = {p.pts: p for p in container.demux(video=0) if p.size}
        at = packets[sorted(packets)[31]]
    data = bytearray(path.read_bytes())
    data[at.pos : at.pos + at.size] = b"\xff" * at.size
    path.write_bytes(data)
    with pytest.warns(HGCVideoWarning, match=r"is damaged: frame 31 cannot be decoded"):
        found = numbers(path)
    assert found[31] == 30
    assert len(found) == 60


FAST_THEN_SLOW = [i / 48 for i in range(24)] + [0.5 + i / 6 for i in range(24)]


@pytest.mark.parametrize("name", ["h264 in mp4", "h264 in mkv, open GOPs", "vp9 in webm"])
def test_a_variable_rate_is_read_by_time(tmp_path, name):
    written = barcoded.FORMATS[name]
    path = tmp_path / f"clip.{written.suffix}"
    barcoded.write(path, written, range(48), fps=48, seconds=FAST_THEN_SLOW)
    fps = probe(path).fps
    assert fps == pytest.approx(48, rel=0.03)  # so fast was the fast part
    found = numbers(path)
    for second in (0.25, 1, 2, 3, 4):
        shown = max(i for i, start in enumerate(FAST_THEN_SLOW) if start <= second + 0.01)
        assert found[round(second * fps)] == shown
    assert found[: round(fps / 2)] == pytest.approx(range(round(fps / 2)), abs=1)
    assert probe(path).duration_s == pytest.approx(4.4, abs=0.15)
    assert load_control(path, "depth", height=128, width=128).fps == pytest.approx(12, rel=0.03)


def test_dropped_frames_are_shown_longer(tmp_path):
    kept = [i for i in range(60) if not 20 <= i < 30]
    path = barcoded.write(tmp_path / "a.mp4", MP4, kept, fps=30, seconds=[i / 30 for i in kept])
    assert (probe(path).fps, probe(path).num_frames) == (30, 60)
    assert numbers(path) == [i if i in kept else 19 for i in range(60)]


def test_jitter_of_a_phone_is_no_variable_rate(tmp_path):
    late = np.random.default_rng(0).uniform(0, 0.008, 60)
    path = barcoded.write(
        tmp_path / "a.mp4", MP4, fps=30, seconds=[i / 30 + t for i, t in enumerate(late)]
    )
    assert probe(path).fps == pytest.approx(30, rel=0.01)
    assert numbers(path) == list(range(60))


@pytest.mark.parametrize(
    "matrix",
    [m for m in itertools.product((-1, 0, 1), repeat=4) if abs(np.linalg.det(np.reshape(m, (2, 2)))) == 1
     and sum(map(abs, m)) == 2],
    ids=str,
)  # fmt: skip
def test_the_display_matrix_is_followed_whole(tmp_path, matrix):
    """Each of the eight ways to mirror and turn, checked by where the matrix sends two patches."""
    path = barcoded.write(tmp_path / "a.mp4", MP4, range(3), size=(128, 192))
    frame = read_frames(barcoded.set_matrix(path, matrix))[0].astype(int)
    a, b, c, d = matrix
    assert frame.shape == ((128, 192, 3) if a else (192, 128, 3))
    assert probe(path).height == frame.shape[0]
    for colour, other, x, y in ((0, 2, -0.75, 0.125), (2, 0, 0.75, 0.875)):
        patch = np.argwhere((frame[..., colour] > 150) & (frame[..., other] < 90)).mean(0)
        down, across = patch / frame.shape[:2] * 2 - 1
        assert across == pytest.approx(a * x + c * y, abs=0.05)
        assert down == pytest.approx(b * x + d * y, abs=0.05)


@pytest.mark.parametrize("aspect", [Fraction(64, 45), Fraction(3, 4), Fraction(1)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_pixels_that_are_not_square_are_made_so(tmp_path, aspect, suffix):
    path = barcoded.write(
        tmp_path / f"a.{suffix}", MP4, range(3), size=(144, 180), sample_aspect=aspect
    )
    info = probe(path)
    assert info.width / info.height == pytest.approx(180 / 144 * aspect, rel=0.01)
    assert info.width >= 180 and info.height >= 144
    frames = read_frames(path)
    assert frames.shape == (3, info.height, info.width, 3)
    assert [barcoded.read(frame) for frame in frames] == [0, 1, 2]


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "tags"),
    [
        ("yuv420p", "libx264", {"colorspace": 1, "color_range": 1}),
        ("yuv420p", "libx264", {"colorspace": 5, "color_range": 1}),
        ("yuv420p", "libx264", {"colorspace": 1, "color_range": 2}),
        ("yuvj420p", "mjpeg", {}),
        ("yuv444p10le", "libx264", {"colorspace": 1, "color_range": 1}),
        ("yuv420p", "libx264", {}),
        ("bgr0", "ffv1", {}),
    ],
)
@pytest.mark.parametrize("height", [128, 720])
def test_colours_are_those_of_the_tags_and_without_tags_of_the_size(
    tmp_path, pix_fmt, codec, tags, height
):
    colour = np.array([200, 40, 30], np.uint8)
    picture = np.tile(colour, (height, 128, 1))
    default = 5 if height < 720 or codec == "mjpeg" else 1
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream(codec, rate=8)
        stream.height, stream.width, stream.pix_fmt = height, 128, pix_fmt
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
            format=pix_fmt,
            dst_colorspace=tags.get("colorspace", default),
            dst_color_range=2 if pix_fmt == "yuvj420p" else tags.get("color_range", 1),
        )
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    shown = read_frames(tmp_path / "a.mkv")[0]
    if codec == "mjpeg" and height == 720:
        assert np.abs(shown[60, 60].astype(int) - colour).max() <= 4  # JPEG is always BT.601
    assert np.abs(shown[60, 60].astype(int) - colour).max() <= 4


def test_a_cover_image_is_not_the_movie(tmp_path):
    movie = barcoded.write(tmp_path / "movie.mkv", MP4, range(10))
    cover = barcoded.write(tmp_path / "cover.mkv", barcoded.FORMATS["mjpeg in mov"], [255])
    both = tmp_path / "both.mp4"
    with av.open(str(movie)) as one, av.open(str(cover)) as two, av.open(str(both), "w") as new:
        picture = new.add_stream_from_template(two.streams.video[0])
        picture.disposition = av.stream.Disposition.attached_pic
        stream = new.add_stream_from_template(one.streams.video[0])
        for source, sink in ((two, picture), (one, stream)):
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = sink
                    new.mux(packet)
    assert numbers(both) == list(range(10))


def test_a_file_that_is_replaced_while_it_is_read_is_said(tmp_path):
    path = barcoded.write(tmp_path / "a.mp4", MP4, range(60))
    movie = Movie(path)
    path.write_bytes(b"no more")
    with pytest.raises(VideoError, match="cannot be read any more"):
        list(movie.frames([5]))


def test_a_plan_of_frames_holds_on_every_kind_of_movie(movie):
    info = probe(movie)
    indices, fps = plan_frames(info.num_frames, info.fps)
    assert fps == pytest.approx(12, abs=0.01)
    assert numbers(movie, indices) == list(range(0, 100, 2))


def test_a_format_without_a_decoder_is_refused(tmp_path):
    """What it is called is all that is known of it."""
    path = barcoded.write(tmp_path / "a.mp4", MP4, range(4))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1"))
    with pytest.raises(VideoError, match="no decoder for; convert it"):
        probe(path)
    assert not has_sound(path)


def test_a_key_frame_that_cannot_be_sought_is_decoded_to(tmp_path, monkeypatch):
    """Some damaged indices forbid it; frames before it are decoded instead."""
    path = barcoded.write(
        tmp_path / "a.mp4",
        barcoded.Format("mp4", "libx264", "keyint=10:bframes=0:scenecut=0"),
        range(60),
    )
    opened = av.open

    class Unsought:
        """A container whose index is damaged."""

        def __init__(self, container):
            self.container = container

        def __enter__(self):
            return self

        def __exit__(self, *ended):
            self.container.close()

        def __getattr__(self, name):
            return getattr(self.container, name)

        def seek(self, *given, **named):
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(av, "open", lambda *given: Unsought(opened(*given)))
    assert [barcoded.read(frame) for frame in iter_frames(path, indices=[50, 3])] == [50, 3]
