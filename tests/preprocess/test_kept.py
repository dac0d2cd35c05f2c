"""What is kept of extractions: by content and parameters, in a bounded folder."""

from __future__ import annotations

import json
import multiprocessing
from typing import ClassVar

import numpy as np
import pytest
from pydantic import Field
from typer.testing import CliRunner

from hgc_video.cli import app
from hgc_video.errors import Cancelled, InputError, VideoError
from hgc_video.media.video import write_video
from hgc_video.preprocess import kept
from hgc_video.preprocess.base import LinePreprocessor, drawn_field
from hgc_video.preprocess.extract import extract_control


class Counted(LinePreprocessor):
    """Mean brightness as a flat image; counts the frames it saw"""

    name = control = "canny"
    seen: ClassVar[list[int]] = []
    own_size: ClassVar[bool] = False

    scale: float = Field(1.0, ge=0, le=2, description="factor")
    shade: int = drawn_field(0, ge=0, le=9, description="of the drawing alone")

    def require(self, offline=False):
        pass

    def made_by(self):
        return {}

    def estimates(self, frames, fps):
        for frame in frames:
            self.seen.append(int(frame.mean()))
            yield np.full(frame.shape[:2], self.scale * frame.mean(), np.uint8)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HGC_VIDEO_HOME", str(tmp_path / "home"))
    Counted.seen.clear()
    return tmp_path / "home" / "extracted"


def clip(num_frames=5, offset=0):
    return np.arange(num_frames, dtype=np.uint8)[:, None, None, None] + np.full(
        (num_frames, 32, 32, 3), 10 + offset, np.uint8
    )


def taken(frames=None, **given):
    size = {"multiple": 1, "default_area": None}
    frames = clip() if frames is None else frames
    return extract_control(frames, Counted(**given), **size).frames[:, 0, 0, 0].tolist()


def test_a_second_run_estimates_nothing(home):
    first = taken()
    assert first == [10, 11, 12, 13, 14] and Counted.seen == first
    assert taken() == first and len(Counted.seen) == 5
    assert taken(shade=3) == first and len(Counted.seen) == 5, "read by the drawing alone"


@pytest.mark.parametrize("other", [{"scale": 0.5}, {"frames": clip(offset=1)}, {"frames": clip(4)}])
def test_what_decides_an_estimate_makes_another(home, other):
    taken()
    seen = len(Counted.seen)
    taken(**other)
    assert len(Counted.seen) > seen and len(kept.entries()) == 2


def test_a_films_name_and_place_do_not_count_and_its_bytes_do(home, tmp_path):
    one, two = (
        write_video(tmp_path / name, clip(offset=k), 8) for k, name in enumerate(("a.mp4", "b.mp4"))
    )
    (tmp_path / "copy.mp4").write_bytes(one.read_bytes())
    for film, more in ((one, 5), (tmp_path / "copy.mp4", 0), (two, 5)):
        seen = len(Counted.seen)
        extract_control(film, Counted())
        assert len(Counted.seen) - seen == more, film


def test_chunks_are_read_from_any_frame(home, monkeypatch):
    monkeypatch.setattr(kept, "_CHUNK_FRAMES", 3)
    arrays = [
        np.full((number, 2), number, np.float32) for number in range(8)
    ]  # ragged, as people are
    made = kept.keep({"a": 1}, iter(arrays), "a")
    assert len(list(made.folder.glob("*.npz"))) == 3 and len(made) == 8
    found = kept.kept({"a": 1})
    for start in range(9):
        read = list(found.read(start))
        assert [len(array) for array in read] == list(range(start, 8))
        assert all((array == len(array)).all() for array in read)


def test_everything_together_is_bounded_and_the_oldest_goes(home):
    noise = np.random.default_rng(0).integers(0, 256, (1, 100, 100), np.uint8)
    import os

    for number in range(4):
        made = kept.keep({"n": number}, iter(noise), "film")
        os.utime(made.folder / "entry.json", (number, number))
    kept.kept({"n": 0})  # used now
    each = kept.entries()[0].nbytes
    kept.set_limit(int(2.5 * each))
    assert {entry.request["n"] for entry in kept.entries()} == {0, 3}
    kept.keep({"n": 4}, iter(noise), "film")
    assert {entry.request["n"] for entry in kept.entries()} == {0, 4}
    kept.set_limit(0)
    assert len(list(kept.keep({"n": 5}, iter(noise), "film").read())) == 1, "what is in use stays"


def test_an_extraction_that_breaks_off_leaves_nothing(home):
    def broken():
        yield np.zeros(3)
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        kept.keep({"a": 1}, broken(), "film")
    assert list(home.iterdir()) == [] and kept.kept({"a": 1}) is None


def _extract(number, told):
    """Extracts, reads and, one of them, clears; tells of each round what was read."""
    frames = clip(40)
    for turn in range(15):
        try:
            told.put(taken(frames) == list(range(10, 50)))
        except VideoError as error:  # it was cleared while it was read
            told.put("clear" in str(error))
        if number == 0 and turn % 3 == 2:
            kept.clear()


def test_processes_extract_read_and_clear_one_folder_at_once(home):
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    workers = [context.Process(target=_extract, args=(number, told)) for number in range(3)]
    for worker in workers:
        worker.start()
    assert all(told.get(timeout=60) for _ in range(45))
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert not [path for path in home.iterdir() if path.name.startswith(".")], "nothing is left"
    assert taken(clip(40)) == list(range(10, 50))


def test_where_nothing_can_be_kept_it_still_goes(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HGC_VIDEO_HOME", str(tmp_path / "file" / "home"))
    Counted.seen.clear()
    assert taken() == [10, 11, 12, 13, 14]
    assert kept.entries() == []


def test_a_user_without_a_home_keeps_nothing(homeless):
    Counted.seen.clear()
    assert taken() == taken() == [10, 11, 12, 13, 14]
    assert len(Counted.seen) == 10 and not list(homeless.iterdir())
    with pytest.raises(InputError, match="HGC_VIDEO_HOME"):
        kept.entries()


def test_a_spoilt_entry_is_made_again_or_told(home):
    taken()
    (entry,) = kept.entries()
    (entry.folder / "entry.json").write_text("{")
    assert taken() == [10, 11, 12, 13, 14] and len(Counted.seen) == 10
    (entry,) = kept.entries()
    for chunk in entry.folder.glob("*.npz"):
        chunk.write_bytes(b"PK spoilt")
    with pytest.raises(VideoError, match="hgc-video cache --clear"):
        taken()


@pytest.mark.parametrize(
    "told", ["[]", "5", "{}", '{"starts": 3}', "[" * 9000, "\xff", '{"name": 1, "starts": ["a"]}']
)
def test_a_damaged_entry_is_shown_made_again_and_dropped(home, told):
    taken()
    (entry,) = kept.entries()
    (entry.folder / "entry.json").write_bytes(told.encode("latin-1"))
    ((name, num_frames, nbytes),) = [(e.name, e.num_frames, e.nbytes) for e in kept.entries()]
    assert (name, num_frames) == ("(damaged)", 0) and nbytes > 0
    shown = CliRunner().invoke(app, ["cache"])
    assert shown.exit_code == 0 and "(damaged)" in shown.stdout
    assert kept.clear() == 1 and kept.entries() == [] and not entry.folder.exists()
    assert taken() == [10, 11, 12, 13, 14]


def test_a_films_name_is_shown_as_it_is(home):
    taken()
    (entry,) = kept.entries()
    index = json.loads((entry.folder / "entry.json").read_text())
    (entry.folder / "entry.json").write_text(json.dumps({**index, "name": "[/b][red]a\x1b[2J.mp4"}))
    shown = CliRunner().invoke(app, ["cache"])
    assert shown.exit_code == 0 and r"[/b][red]a\x1b[2J.mp4" in shown.stdout


def test_the_command_shows_bounds_and_clears(home):
    taken()
    run = CliRunner().invoke(app, ["cache", "--limit", "3MiB"])
    assert run.exit_code == 0 and "1 kept, 0.0 of 3 MiB" in run.stdout
    assert "canny" in run.stdout and "the clip in memory" in run.stdout
    assert "dropped 1" in CliRunner().invoke(app, ["cache", "--clear"]).stdout
    assert kept.entries() == [] and kept.limit_nbytes() == 3 * 2**20
    wrong = CliRunner().invoke(app, ["cache", "--limit", "much"])
    assert wrong.exit_code == 2 and wrong.stderr.count("\n") == 1


def test_a_limit_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HGC_VIDEO_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot write"):
        kept.set_limit(5)
