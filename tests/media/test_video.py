"""Reading and writing of clips, on real files made here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from hgc_video.errors import InputError, VideoError
from hgc_video.media.video import check_output, iter_frames, probe, read_frames, write_video


def moving_square(frames=10, height=48, width=64):
    clip = np.full((frames, height, width, 3), 40, np.uint8)
    for index in range(frames):
        clip[index, 16:32, 4 * index : 4 * index + 16] = (220, 60, 30)
    return clip


def difference(a, b):
    return np.abs(a.astype(int) - b.astype(int)).mean()


@pytest.mark.parametrize(("name", "allowed"), [("a.mp4", 3), ("a.gif", 1), ("a.webp", 3), ("a", 0)])
@pytest.mark.parametrize("fps", [8, 12, 24000 / 1001])
def test_round_trip_keeps_frames_rate_and_length(tmp_path, name, allowed, fps):
    clip = moving_square()
    path = write_video(tmp_path / name, clip, fps)
    info = probe(path)
    assert (info.num_frames, info.height, info.width) == (10, 48, 64)
    assert info.duration_s == pytest.approx(10 / fps, abs=0.011)
    assert difference(read_frames(path), clip) <= allowed
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a"])
def test_repeated_frames_survive(tmp_path, name):
    clip = moving_square(4)[[0, 0, 0, 1, 2, 2, 3, 3, 3, 3]]
    write_video(tmp_path / name, clip, 12)
    back = read_frames(tmp_path / name)
    assert len(back) == 10
    assert difference(back, clip) < 4


def test_odd_sizes_in_mp4_keep_the_picture(tmp_path):
    clip = moving_square(5, 47, 63)
    back = read_frames(write_video(tmp_path / "a.mp4", clip, 8))
    assert back.shape == (5, 48, 64, 3)
    assert difference(back[:, :47, :63], clip) < 3


def test_mp4_is_h264_yuv420p_with_faststart(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_square(), 8)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_frames_may_come_one_by_one_and_single(tmp_path):
    path = write_video(tmp_path / "a.mp4", iter(moving_square(1)), 8)
    assert probe(path).num_frames == 1


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a"])
def test_indices_in_any_order(tmp_path, name):
    write_video(tmp_path / name, moving_square(), 8)
    everything = read_frames(tmp_path / name)
    wanted = [7, 2, 2, 9, 0]
    assert np.array_equal(read_frames(tmp_path / name, indices=wanted), everything[wanted])
    with pytest.raises(InputError, match="has 10 frames"):
        iter_frames(tmp_path / name, indices=[10])


@pytest.mark.parametrize("width", [16, 48, 96, 98, 128])
def test_no_width_is_garbled(tmp_path, width):
    clip = np.random.default_rng(0).integers(0, 256, (4, 2, width // 8, 3), np.uint8)
    clip = clip.repeat(16, axis=1).repeat(8, axis=2)[:, :, :width]
    back = read_frames(write_video(tmp_path / "a.mp4", clip, 8))
    inside = np.arange(clip.shape[2]) % 8 // 2 % 3 == 1  # colour is stored at half the resolution
    assert difference(back[:, :, inside], clip[:, :, inside]) < 6


@pytest.mark.parametrize("height", [64, 128, 720])
def test_mp4_is_bt709_and_says_so_at_every_size(tmp_path, height):
    colours = np.array([[255, 85, 0], [0, 255, 85], [85, 0, 255], [200, 40, 30]], np.uint8)
    clip = colours.repeat(32, 0)[None, None].repeat(2, 0).repeat(height, 1)
    path = write_video(tmp_path / "a.mp4", clip, 8)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        tags = (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)
        assert tags == (1, 1, 1, 1)
        # Read by the tags alone, by another reader than ours.
        shown = frame.to_ndarray(format="rgb24", src_colorspace="ITU709")
    assert np.abs(shown[32, 16::32].astype(int) - colours).max() <= 3
    assert np.abs(read_frames(path)[0, 32, 16::32].astype(int) - colours).max() <= 3


def test_images_and_folders(tmp_path):
    for number in (2, 10, 1):
        Image.new("RGB", (20, 10), (number, 0, 0)).save(tmp_path / f"f{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    assert read_frames(tmp_path)[:, 0, 0, 0].tolist() == [1, 2, 10]
    assert probe(tmp_path / "f1.png").num_frames == 1
    deep = Image.fromarray(np.full((10, 20), 0x80FF, np.uint16))
    deep.save(tmp_path / "f11.png")
    assert read_frames(tmp_path)[-1].max() == 0x80
    Image.new("RGB", (5, 5)).save(tmp_path / "f12.png")
    with pytest.raises(VideoError, match="one size"):
        read_frames(tmp_path)


def test_frames_are_in_the_order_of_their_numbers_whatever_their_names_are(tmp_path):
    for shade, name in enumerate(("²7", "²30", "٣", "f1"), 1):  # "²" is no number; "٣" is 3
        Image.new("RGB", (20, 10), (shade, 0, 0)).save(tmp_path / f"{name}.png")
    shades = read_frames(tmp_path)[:, 0, 0, 0].tolist()
    assert sorted(shades) == [1, 2, 3, 4] and shades.index(1) < shades.index(2)


def test_transparent_images_lie_on_black(tmp_path):
    Image.new("RGBA", (8, 8), (255, 255, 255, 0)).save(tmp_path / "a.png")
    assert read_frames(tmp_path / "a.png").max() == 0


def test_frames_in_memory():
    clip = moving_square(3)
    assert probe(clip).fps == 8
    assert np.array_equal(read_frames([Image.fromarray(frame) for frame in clip]), clip)
    assert read_frames([np.zeros((4, 5), np.uint8)]).shape == (1, 4, 5, 3)
    for wrong in (clip / 255.0, clip[0], clip[..., :2], clip[:0], [], [clip[0], clip[0, 1:]]):
        with pytest.raises(VideoError):
            probe(wrong)


def test_unreadable_clips_say_why(tmp_path):
    (tmp_path / "text.mp4").write_text("this is no video " * 99)
    (tmp_path / "text.gif").write_text("this is no image")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "empty.gif").touch()
    (tmp_path / "folder").mkdir()
    _sound_only(tmp_path / "sound.mp4")
    for name, why in {
        "none.mp4": "no file",
        "text.mp4": "is not a video",
        "text.gif": "damaged",
        "empty.mp4": "is empty, 0 bytes",
        "empty.gif": "is empty, 0 bytes",
        "folder": "holds no images",
        "sound.mp4": "no video stream",
    }.items():
        with pytest.raises(VideoError, match=why) as caught:
            probe(tmp_path / name)
        assert "\n" not in str(caught.value)


def _sound_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        silence.sample_rate = 16000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())


def test_a_movie_without_frames(tmp_path):
    path = write_video(tmp_path / "a.avi.mp4", moving_square(2), 8)
    for bare in (tmp_path / "bare.mkv", tmp_path / "bare.avi"):
        with av.open(str(path)) as source, av.open(str(bare), "w") as sink:
            sink.add_stream_from_template(source.streams.video[0])
            sink.start_encoding()
        with pytest.raises(VideoError, match="zero frames"):
            probe(bare)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a"])
@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_write_leaves_nothing(tmp_path, name, fault):
    def stopped():
        yield from moving_square(6)
        raise fault

    with pytest.raises(fault):
        write_video(tmp_path / name, stopped(), 8)
    assert list(tmp_path.iterdir()) == []
    write_video(tmp_path / name, moving_square(3), 8)
    with pytest.raises(fault):
        write_video(tmp_path / name, stopped(), 8)
    assert probe(tmp_path / name).num_frames == 3
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_folder_of_frames_is_replaced_as_a_whole(tmp_path):
    write_video(tmp_path / "clip", moving_square(9), 8)
    write_video(tmp_path / "clip", moving_square(4), 8)
    assert probe(tmp_path / "clip").num_frames == 4
    assert [p.name for p in tmp_path.iterdir()] == ["clip"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a.avi", r"unknown suffix.*\.mp4, \.webm, \.gif, \.webp"),
        ("missing/a.mp4", "create it first"),
        ("mine", "no folder of frames"),
        ("dir.mp4", "is a folder"),
        ("file.txt/a.mp4", "create it first"),
    ],
)
def test_places_that_cannot_be_written(tmp_path, name, why):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").touch()
    (tmp_path / "dir.mp4").mkdir()
    (tmp_path / "file.txt").touch()
    before = sorted(tmp_path.rglob("*"))
    for attempt in (check_output, lambda path: write_video(path, moving_square(2), 8)):
        with pytest.raises(VideoError, match=why):
            attempt(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs Linux's unwritable /proc")
def test_a_folder_that_refuses_files():
    with pytest.raises(VideoError, match=r'cannot write "/proc/a.mp4"'):
        check_output("/proc/a.mp4")
    with pytest.raises(VideoError, match=r'cannot write "/proc/a.mp4"'):
        write_video("/proc/a.mp4", moving_square(2), 8)


def test_check_output_leaves_nothing(tmp_path):
    for name in ("a.mp4", "a.gif", "a.webp", "a"):
        check_output(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_bad_frames_and_rates(tmp_path):
    for frames in (moving_square(2) / 255.0, moving_square(2)[0], [np.zeros((4, 4), np.uint8)]):
        with pytest.raises(InputError):
            write_video(tmp_path / "a.mp4", frames, 8)
    with pytest.raises(VideoError, match="zero frames"):
        write_video(tmp_path / "a.mp4", moving_square(0), 8)
    for fps in (0, -1, float("nan")):
        with pytest.raises(InputError, match="fps"):
            write_video(tmp_path / "a.mp4", moving_square(2), fps)
    assert list(tmp_path.iterdir()) == []


_WRITE_NOISE = """
import sys
import numpy as np
from hgc_video.errors import VideoError
from hgc_video.media.video import write_video
if sys.argv[2] == "limit":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
noise = np.random.default_rng(0).integers(0, 256, (12, 256, 256, 3), np.uint8)
try:
    write_video(sys.argv[1], noise, 8)
except VideoError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a POSIX matter")
@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a"])
def test_a_file_too_big_for_its_place(tmp_path, name):
    command = [sys.executable, "-c", _WRITE_NOISE, str(tmp_path / name), "limit"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "cannot write" in done.stdout and "ulimit -f" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a"])
def test_a_full_disk(tmp_path, name):
    script = 'mount -t tmpfs -o size=200k t "$1" && "$2" -c "$3" "$1/$4" full && ls -A "$1"'
    shell = ["sh", "-c", script, "sh", str(tmp_path), sys.executable, _WRITE_NOISE, name]
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare to mount a tiny disk")
    command = ["unshare", "--mount", *shell]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("may not mount a tiny disk here")
    assert done.stdout.startswith("the disk is full"), done.stderr
    assert done.stdout.count("\n") == 1  # and ls found nothing left
