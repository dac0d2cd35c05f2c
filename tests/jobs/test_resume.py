"""A run that stopped goes on from its folder alone, to where it or the call says."""

from __future__ import annotations

import json
import shutil

import pytest

import hgc_video
from hgc_video.errors import Cancelled, StateError
from hgc_video.jobs.resume import resume
from hgc_video.puppet.evaluation import held_out

SMALL = {"num_inference_steps": 2, "height": 64, "width": 64, "progress": False}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder whose run stopped after its first step, and was to write a.mp4 beside it."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.raises(Cancelled):
        hgc_video.generate(
            held_out(6, 1).truth.pose, "a dancer", **SMALL, seed=5, work=folder / "work",
            out=folder / "a.mp4", checkpoint_every_s=0, callback=lambda *_: False,
        )  # fmt: skip
    return folder / "work"


@pytest.fixture
def work(stopped, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(stopped, tmp_path / "work")


@pytest.mark.parametrize("what", ["no", "empty", "torn"])
def test_a_folder_without_a_run_is_told(tmp_path, what):
    place = tmp_path / "work"
    if what != "no":
        place.mkdir()
    if what == "torn":
        (place / "job.json").write_text('{"options"')
    with pytest.raises(StateError) as told:
        resume(str(place))
    assert str(told.value) == f'no run was begun in "{place}"; name the work folder of one'
    assert what == "no" or "lock" not in [path.name for path in place.iterdir()]


def test_a_description_of_another_version_is_told(tmp_path):
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(StateError, match=r"damaged .options: Field required"):
        resume(tmp_path)


def test_a_run_goes_on_to_where_it_was_to_write(work, stopped, capsys):
    clip = resume(work, progress=False)
    assert clip.report.resumed_at == 1 and clip.report.seed == 5
    assert (stopped.parent / "a.mp4").is_file() and (work / "done.json").is_file()
    assert capsys.readouterr().err == ""


def test_a_run_is_written_elsewhere_where_that_is_told(work, tmp_path, monkeypatch, capsys):
    """Found in the user's home; the callback sees the step that is left, and progress is shown."""
    monkeypatch.setenv("HOME", str(tmp_path))
    before, steps = (work / "job.json").read_bytes(), []
    resume("~/work", out=tmp_path / "b.mp4", callback=lambda *told: steps.append(told[0]))
    assert (tmp_path / "b.mp4").is_file() and steps == [1]
    assert json.loads((work / "done.json").read_text())["out"] == "~/b.mp4"
    assert (work / "job.json").read_bytes() == before
    assert capsys.readouterr().err != ""


def test_a_callback_may_stop_it_again(work):
    with pytest.raises(Cancelled):
        resume(work, progress=False, callback=lambda *_: False)
    assert not (work / "done.json").exists()
