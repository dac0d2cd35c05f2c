"""Edges and line art of drawn frames, at any size and rate."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from hgc_video.cli import app
from hgc_video.errors import MissingExtraError
from hgc_video.media.video import probe, read_frames, write_video
from hgc_video.preprocess.extract import extract_control
from hgc_video.preprocess.registry import make_preprocessor

pytest.importorskip("cv2", reason='needs pip install "hgc_video[edges]"')


def squares(num_frames=6, height=96, width=128, level=0, step=4):
    """A dark square of 40 pixels that moves to the right by `step` pixels a frame, on bright ground."""
    frames = np.full((num_frames, height, width, 3), 200, np.uint8)
    for number, frame in enumerate(frames):
        left = 10 + step * number
        frame[30:70, left : left + 40] = level
    return frames


def test_canny_draws_the_outline_where_it_is():
    control = extract_control(squares(), "canny", multiple=1, default_area=None)
    assert (control.kind, control.fps, control.shape) == ("canny", 8, (6, 96, 128))
    for number, frame in enumerate(control.frames):
        rows, columns = np.nonzero(frame.max(-1))
        left = 10 + 4 * number
        found = (rows.min(), rows.max(), columns.min(), columns.max())
        assert np.abs(np.array(found) - (30, 70, left, left + 40)).max() <= 1
        assert set(np.unique(frame)) == {0, 255}
        assert frame[35:65, left + 5 : left + 35].max() == 0, "nothing inside the square"


def test_parameters_decide_what_is_an_edge():
    faint = squares(2, level=170)
    seen = {
        text: extract_control(faint, text).frames.max()
        for text in ("canny", "canny:low=20,high=40")
    }
    assert seen == {"canny": 0, "canny:low=20,high=40": 255}
    assert extract_control(squares(2), "canny:blur=8").frames.max() == 0


def test_line_art_is_bright_at_dark_lines_and_does_not_flicker():
    frames = np.full((12, 64, 96, 3), 220, np.uint8)
    frames[:, 20:24, 10:80] = 40  # a dark line, and in every second frame a faint one
    frames[::2, 40:42, 10:80] = 190
    control = extract_control(frames, "lineart", multiple=1, default_area=None).frames
    assert control[:, 22, 40, 0].min() > 100 and control[:, 55, 40].max() < 10
    assert np.ptp(control[:, 22, 40, 0].astype(int)) == 0, "one strength for the whole clip"


def test_lines_are_taken_at_the_size_of_the_control_and_padded_with_black():
    control = extract_control(squares(2), "canny", height=96, width=96, multiple=32)
    assert control.shape == (2, 96, 96)
    frames = control.frames
    assert frames[:, :12].max() == 0 and frames[:, 84:].max() == 0 and frames.max() == 255
    big = squares(2).repeat(4, 1).repeat(4, 2)
    small = extract_control(big, "canny", height=96, width=128).frames
    assert small.max() == 255 and (small[0] > 0).sum() < 3 * 4 * 40 * 2, "lines one pixel wide"


def test_the_command_writes_the_whole_film_at_its_own_size_and_rate(tmp_path):
    film = write_video(tmp_path / "film.mp4", squares(40), 25)
    run = CliRunner().invoke(app, ["extract", "canny:low=50", str(film), str(tmp_path / "out.mp4")])
    assert run.exit_code == 0, run.output
    info = probe(tmp_path / "out.mp4")
    assert (info.num_frames, info.fps, info.height, info.width) == (40, 25, 96, 128)
    assert "canny     40 frames of 128x96 at 25 fps" in run.stdout
    taken = ["--num-frames", "5", "--fps", "5", "--width", "64", "--height", "48", "--quiet"]
    run = CliRunner().invoke(app, ["extract", "canny", str(film), str(tmp_path / "few"), *taken])
    assert (run.exit_code, run.output) == (0, "")
    assert (
        read_frames(tmp_path / "few").shape == (5, 48, 64, 3) and probe(tmp_path / "few").fps == 5
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "write hgc-video extract KIND IN OUT"),
        (["cany", "film.mp4", "out.mp4"], 'did you mean "canny"'),
        (["canny", "film.mp4", "film.mp4"], "is the film itself"),
        (["canny", "none.mp4", "out.mp4"], 'no file "none.mp4"'),
        (["canny", "film.mp4", "out.xyz"], "unknown suffix"),
        (["canny", "film.mp4", "out.mp4", "--num-frames", "99"], "beyond the clip"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video("film.mp4", squares(3), 8)
    run = CliRunner().invoke(app, ["extract", *arguments])
    assert run.exit_code == 2 and run.stdout == ""
    assert says in run.stderr and run.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    for name in ("canny", "lineart"):
        with pytest.raises(MissingExtraError, match=rf"{name} needs OpenCV .*hgc_video\[edges\]"):
            make_preprocessor(name).require()
