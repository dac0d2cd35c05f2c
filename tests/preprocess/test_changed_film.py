"""A film that is written to while its control is extracted is an error, and nothing is kept."""

from __future__ import annotations

import os
import shutil
from typing import ClassVar

import numpy as np
import pytest
from typer.testing import CliRunner

from hgc_video.cli import app
from hgc_video.errors import VideoError
from hgc_video.media.video import write_video
from hgc_video.options import GenerateOptions
from hgc_video.preprocess import kept, registry
from hgc_video.preprocess.base import LinePreprocessor
from hgc_video.preprocess.extract import extract_control

SIZE = {"multiple": 1, "default_area": None}


class Brightness(LinePreprocessor):
    """Mean brightness as a flat image; something happens after some frames"""

    name = control = "canny"
    happens: ClassVar[dict] = {}

    def require(self, offline=False):
        pass

    def made_by(self):
        return {}

    def estimates(self, frames, fps):
        for number, frame in enumerate(frames):
            if number in self.happens:
                self.happens.pop(number)()
            yield np.full(frame.shape[:2], frame.mean(), np.uint8)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HGC_VIDEO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(Brightness, "happens", {})
    return tmp_path / "home" / "extracted"


def clip(value, num_frames=40):
    return np.full((num_frames, 32, 32, 3), value, np.uint8)


def shades(film):
    return sorted(set(extract_control(film, Brightness(), **SIZE).frames[:, 16, 16, 0].tolist()))


def overwritten(film, other):
    with film.open("r+b") as file:  # the same file: whoever reads it sees the new bytes
        file.truncate()
        file.write(other.read_bytes())


def replaced(film, other):
    shutil.copyfile(other, film.with_suffix(".new"))
    film.with_suffix(".new").replace(film)


def cut_off(film, other):
    os.truncate(film, 700)


def removed(film, other):
    film.unlink()


CHANGES = [overwritten, replaced, cut_off, removed]


@pytest.fixture
def films(tmp_path):
    """A film, an untouched copy of it, and another film."""
    film = write_video(tmp_path / "film.mp4", clip(40), 8)
    copy = tmp_path / "copy.mp4"
    shutil.copyfile(film, copy)
    return film, copy, write_video(tmp_path / "other.mp4", clip(200), 8)


@pytest.mark.parametrize("keep_found", [True, False])
@pytest.mark.parametrize("at", [0, 39])
@pytest.mark.parametrize("change", CHANGES)
def test_a_film_that_changes_while_it_is_read_is_told_and_not_kept(
    home, films, change, at, keep_found
):
    film, copy, other = films
    right = shades(copy)
    kept.clear()
    Brightness.happens[at] = lambda: change(film, other)
    with pytest.raises(VideoError, match=r'film\.mp4" changed while it was read; run it again'):
        extract_control(film, Brightness(), keep_found=keep_found, **SIZE)
    assert list(home.iterdir()) == [] and kept.entries() == []
    assert shades(copy) == right and right != shades(other)


def test_a_film_that_changes_before_its_content_is_known_is_told(home, films, monkeypatch):
    """Its length and its frames' times were those of the older film."""
    from hgc_video.preprocess import extract

    film, _, other = films
    own = extract.content_of

    def content_of(video):
        overwritten(film, other)
        return own(video)

    monkeypatch.setattr(extract, "content_of", content_of)
    with pytest.raises(VideoError, match="changed while it was read"):
        shades(film)
    assert kept.entries() == []


def test_a_folder_whose_images_change_is_told_and_other_files_of_it_do_not_count(home, tmp_path):
    folder = write_video(tmp_path / "frames", clip(40, 6), 8)
    Brightness.happens[2] = lambda: (folder / "notes.txt").write_text("of somebody else")
    assert shades(folder) == [40]
    kept.clear()
    last = sorted(folder.glob("*.png"))[-1]
    for change in (lambda: shutil.copyfile(last, folder / "9999.png"), last.unlink):
        Brightness.happens[2] = change
        with pytest.raises(VideoError, match="changed while it was read"):
            shades(folder)
    assert kept.entries() == []


def test_frames_in_memory_that_change_are_told(home):
    frames = clip(40)
    Brightness.happens[20] = lambda: frames.__setitem__(slice(None), 200)
    with pytest.raises(VideoError, match="the clip in memory changed while it was read"):
        shades(frames)
    assert kept.entries() == []
    assert shades(clip(40)) == [40]


def test_a_film_that_cannot_be_read_and_did_not_change_is_told_as_that(home, films):
    def stumble():
        raise VideoError("frame 3 is damaged")

    Brightness.happens[3] = stumble
    with pytest.raises(VideoError, match="frame 3 is damaged"):
        shades(films[0])


def test_the_command_writes_no_clip_of_a_film_that_changed(home, films, tmp_path, monkeypatch):
    film, _, other = films
    monkeypatch.setitem(registry.PREPROCESSORS, "canny", Brightness)
    monkeypatch.setattr("hgc_video.preprocess.registry.make_preprocessor", lambda _: Brightness())
    Brightness.happens[5] = lambda: overwritten(film, other)
    run = CliRunner().invoke(app, ["extract", "canny", str(film), str(tmp_path / "out.mp4")])
    assert run.exit_code == 2 and "changed while it was read" in run.stderr
    assert run.stderr.strip().count("\n") == 0
    assert not (tmp_path / "out.mp4").exists() and list(home.iterdir()) == []


def test_a_run_whose_film_changes_is_told(home, films, monkeypatch):
    """Controls of `generate` are taken the same way."""
    from hgc_video.models.load import read_facts
    from hgc_video.sampling.controls import read_controls

    film, _, other = films
    monkeypatch.setitem(registry.PREPROCESSORS, "depth", Brightness)
    options = GenerateOptions(control_video=film, prompt="a", control="depth", extract=True)
    Brightness.happens[3] = lambda: overwritten(film, other)
    with pytest.raises(VideoError, match="changed while it was read"):
        read_controls(options, read_facts("puppet"))
    assert kept.entries() == []
