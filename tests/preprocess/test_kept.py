"""What is kept of extractions: by content and parameters, in a bounded folder."""

from __future__ import annotations

import errno
import gc
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
from pydantic import Field
from typer.testing import CliRunner

from hgc_video.cli import app
from hgc_video.errors import Cancelled, HGCVideoWarning, InputError, VideoError
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


def test_arrays_are_read_from_any_frame(home):
    arrays = [
        np.full((number, 2), number, np.float32) for number in range(8)
    ]  # ragged, as people are
    made = kept.keep({"a": 1}, iter(arrays), "a")
    assert len(list(made.folder.glob("*.npz"))) == 1 and len(made) == 8
    found = kept.kept({"a": 1})
    for start in range(9):
        read = list(found.read(start))
        assert [len(array) for array in read] == list(range(start, 8))
        assert all((array == len(array)).all() for array in read)


def test_everything_together_is_bounded_and_the_oldest_goes(home):
    noise = np.random.default_rng(0).integers(0, 256, (1, 100, 100), np.uint8)
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
        except VideoError as error:
            told.put(str(error))
        if number == 0 and turn % 3 == 2:
            kept.clear()


def test_processes_extract_read_and_clear_one_folder_at_once(home):
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    workers = [context.Process(target=_extract, args=(number, told)) for number in range(3)]
    for worker in workers:
        worker.start()
    assert [told.get(timeout=60) for _ in range(45)] == [True] * 45
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert not [path for path in home.iterdir() if path.name.startswith(".")], "nothing is left"
    assert taken(clip(40)) == list(range(10, 50))


def _clear_elsewhere():
    subprocess.run(
        [sys.executable, "-c", "from hgc_video.preprocess import kept; kept.clear()"], check=True
    )


def _handles():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.mark.parametrize("again", [False, True])
def test_an_entry_that_another_process_drops_is_read_on(home, again):
    """Whether it was just made or found: many frames are to come, and none of them was read yet."""
    frames, size = clip(200), {"multiple": 1, "default_area": None}
    if again:
        extract_control(frames, Counted(), **size)
    made = extract_control(frames, Counted(), **size)
    _clear_elsewhere()
    assert kept.entries() == [] and list(home.iterdir()) == []
    assert made.frames[:, 0, 0, 0].tolist() == list(range(10, 210))
    assert len(Counted.seen) == 200


def test_little_room_drops_an_entry_while_it_is_read(home):
    arrays = [np.full((9, 9), number, np.uint8) for number in range(100)]
    reading = kept.keep({"a": 1}, iter(arrays), "a").read()
    next(reading)
    kept.set_limit(0)
    assert [int(array.max()) for array in reading] == list(range(1, 100))


def test_an_entry_made_by_two_at_once_is_read_by_both(home):
    arrays = [np.full((9, 9), number, np.uint8) for number in range(100)]
    one = kept.keep({"a": 1}, iter(arrays), "a")
    two = kept.keep({"a": 1}, iter(arrays), "a")
    shutil.rmtree(home)
    for made in (one, two):
        assert [int(array.max()) for array in made.read()] == list(range(100))


@pytest.mark.skipif(not kept.Path("/proc/self/fd").is_dir(), reason="tells its handles elsewhere")
def test_estimates_that_nobody_has_are_closed(home, full_disk):
    made = extract_control(clip(), Counted())
    before = _handles()
    for _ in range(3):
        extract_control(clip(), Counted())
        with pytest.raises(Cancelled):
            kept.keep({"a": 1}, _broken(Cancelled("stopped")), "film")
    full_disk(nbytes=300)
    with pytest.warns(HGCVideoWarning):
        kept.keep({"a": 2}, iter(clip()), "film")
    assert _handles() == before
    del made
    assert _handles() == before - 1


def _broken(error):
    yield np.zeros(3)
    raise error


@pytest.fixture
def full_disk(monkeypatch):
    """Fills the disk: so many bytes of an archive can still be written."""
    write = kept._write_all

    def fill(nbytes):
        left = [nbytes]

        def until_full(file, data):
            if not isinstance(file, kept.io.FileIO):
                return write(file, data)
            write(file, data[: left[0]])  # a disk takes what still fits
            if len(data) > left[0]:
                left[0] = 0
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left[0] -= len(data)

        monkeypatch.setattr(kept, "_write_all", until_full)

    return fill


@pytest.mark.parametrize("nbytes", [0, 20, 100, 1000, 1900, 2000, 2350])
def test_on_a_full_disk_nothing_is_kept_and_no_frame_is_estimated_twice(home, full_disk, nbytes):
    """Whatever is cut in two: the first frame, one of the others, what the archive ends with."""
    full_disk(nbytes)
    with pytest.warns(HGCVideoWarning) as told:
        assert taken(clip(12)) == list(range(10, 22))
    assert Counted.seen == list(range(10, 22))
    assert list(home.iterdir()) == []
    (one,) = told
    text = str(one.message)
    assert "the clip in memory" in text and "no space left on device" in text and str(home) in text
    assert "HGC_VIDEO_HOME" in text and "hgc-video cache --limit" in text and "\n" not in text


@pytest.mark.parametrize("place", ["mkdir", "write_text", "replace"])
def test_a_disk_that_is_full_at_the_beginning_or_the_end_keeps_nothing(home, monkeypatch, place):
    taken(clip(1))  # the folder of all entries is there
    Counted.seen.clear()

    def full(self, *given, **options):
        if ".part" in f"{self}":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return own(self, *given, **options)

    own = getattr(kept.Path, place)
    monkeypatch.setattr(kept.Path, place, full)
    with pytest.warns(HGCVideoWarning, match="no space left"):
        assert taken() == [10, 11, 12, 13, 14]
    assert len(Counted.seen) == 5 and len(list(home.iterdir())) == 1
    monkeypatch.undo()


def test_an_error_of_the_film_is_not_one_of_keeping_it(home):
    with pytest.raises(
        VideoError, match=r'^"a\.mp4" cannot be gone through .*Input/output'
    ) as told:
        kept.keep({"a": 1}, _broken(OSError(errno.EIO, "Input/output error")), '"a.mp4"')
    assert "cannot write" not in str(told.value) and list(home.iterdir()) == []


def test_an_open_entry_is_kept_where_no_open_file_is_moved(home, monkeypatch):
    monkeypatch.setattr(kept, "_OPEN_IS_RENAMED", False)  # as on Windows
    first = taken()
    assert taken() == first and len(Counted.seen) == 5 and len(kept.entries()) == 1


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
    archive = entry.folder / "000000.npz"
    archive.write_bytes(b"PK spoilt")
    assert taken() == [10, 11, 12, 13, 14] and len(Counted.seen) == 15
    whole = archive.read_bytes()
    archive.write_bytes(whole[:100] + bytes(20) + whole[120:])
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
