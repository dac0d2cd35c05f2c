"""Text inside clips: what is embedded is read back, in every format."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hgc_video.errors import VideoError
from hgc_video.media.metadata import read_text
from hgc_video.media.video import read_frames, write_video
from hgc_video.media.write import Extras

PROMPT = "a dancer in a café, 日本, 😀; a=b\\n#"
TEXT = json.dumps({"prompt": PROMPT, "rows": list(range(20_000))}, ensure_ascii=False)


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), np.uint8)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.webp", "a"])
def test_text_comes_back_whole_and_frames_stay_as_they_are(tmp_path, frames, name):
    path = write_video(tmp_path / name, frames, 8, Extras(text=TEXT))
    assert read_text(path) == TEXT
    with_text = read_frames(path)
    write_video(tmp_path / name, frames, 8)
    assert read_text(path) is None
    assert np.array_equal(with_text, read_frames(path))


def test_files_that_are_no_clips(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "text.gif").write_text("no image")
    (tmp_path / "empty").mkdir()
    for name, why in {
        "none.mp4": "no file", "text.mp4": "is not a video", "text.gif": "cannot be read as an image",
    }.items():  # fmt: skip
        with pytest.raises(VideoError, match=why):
            read_text(tmp_path / name)
    assert read_text(tmp_path / "empty") is None
