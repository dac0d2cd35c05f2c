"""The work of one call: begun, refused or done already; its folder stays, or goes as it came."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import replace

import numpy as np
import pytest

from hgc_video.errors import Cancelled, HGCVideoWarning, InputError, StateError
from hgc_video.jobs.checkpoint.description import Description
from hgc_video.jobs.checkpoint.keeper import how_to_go_on
from hgc_video.jobs.checkpoint.work import Work, begun_seed
from hgc_video.jobs.checkpoint.work_folder import WorkFolder
from hgc_video.options import GenerateOptions
from hgc_video.plan.memory.windows import Windows
from hgc_video.plan.presets import resolve
from hgc_video.plan.run_plan import plan_run
from hgc_video.sampling.run_state import Position
from tests.plan.test_graph import ladder

POSE = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)


def options_of(**given):
    return GenerateOptions(**{"control_video": POSE, "prompt": "a", **given})


@pytest.fixture
def place(tmp_path):
    return tmp_path / "work"


@pytest.fixture
def begin(place):
    """Begins the work of a call; what is still held at the end of a test is given back."""
    made = []

    def new(**given):
        made.append(Work(options_of(**{"work": place, **given})))
        return made[-1]

    yield new
    for work in made:
        if work.folder is not None:
            work.folder.close()


def left(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else None


def late(work):
    """Has the keeper take its folder, as of a run that turns out to be long."""
    plan = plan_run(resolve("off"), ladder(), Windows(4, 4), evaluations=9, asked=9)
    work.keeper._long_s = -1.0
    work.keeper.planned(plan, 8)
    work.keeper.offer(Position(1, 9), dict)
    return work.keeper.folder


def test_where_nothing_is_kept_there_is_no_keeper(tmp_path, begin):
    for given in ({"out": None}, {"out": tmp_path / "a.mp4", "devices": 2}):
        work = begin(work=None, **given)
        assert work.keeper is None and work.folder is None and work.write_s == 0.0
        assert work.finished() is None
        with work.kept():
            pass
        with pytest.raises(KeyboardInterrupt), work.kept():
            raise KeyboardInterrupt
        work.finish(None)
    assert left(tmp_path) == []


def test_a_folder_that_is_asked_for_is_begun_at_once(place, begin):
    work = begin(checkpoint_every_s=7)
    assert left(place) == ["input-pose.npy", "job.json", "lock"]
    assert work.folder is work.keeper.folder and work.folder.path == place
    told = work.folder.read("job")
    assert told == {**Description.of(options_of(work=place)).to_dict(), "asked": True} | {
        "options": {**told["options"], "checkpoint_every_s": 7.0}
    }
    assert work.keeper._every_s == 7.0 and work.finished() is None
    with pytest.raises(StateError, match="another process works in"):
        WorkFolder(place).open()


def test_a_folder_in_the_users_home_is_found(tmp_path, monkeypatch, begin):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert begin(work="~/work").folder.path == tmp_path / "work"
    assert begun_seed("~/work") == 0
    work = begin(work=None, out="~/a.mp4")
    assert work._folder.path == tmp_path / "a.mp4.work"


def test_beside_a_clip_a_folder_is_begun_when_the_run_is_long(tmp_path, begin):
    work = begin(work=None, out=tmp_path / "a.mp4")
    assert work.folder is None and work.keeper.folder is None and left(tmp_path) == []
    folder = late(work)
    assert folder.path == tmp_path / "a.mp4.work" and work.folder is folder
    assert folder.read("job")["asked"] is False
    folder.close()
    again = begin(work=None, out=tmp_path / "a.mp4")
    assert again.folder is not None, "what was begun goes on at once"
    again.folder.close()
    # One who asks for that very folder gets it as it was begun.
    assert begin(work=folder.path, out=tmp_path / "a.mp4")._asked is False


def test_what_was_begun_goes_on_where_nothing_changed(place, begin):
    begin().folder.close()
    before = (place / "job.json").read_bytes()
    work = begin(out=place.parent / "a.mp4")
    assert (place / "job.json").read_bytes() == before and work.folder is not None


def test_another_run_is_refused_with_all_that_changed(place, begin):
    begin().folder.close()
    with pytest.raises(StateError) as told:
        begin(seed=3, preset="fast")
    assert str(told.value) == (
        f'work "{place}" is of another run: preset was "balanced", is "fast"; seed was 0, is 3; '
        f"go on with that one by hgc-video resume {place}, name another folder, or remove it"
    )
    WorkFolder(place).open()  # it was not taken


def test_the_seed_of_what_was_begun(place, begin, tmp_path):
    assert begun_seed(None) is None and begun_seed(place) is None
    begin(seed=2**40).folder.close()
    assert begun_seed(place) == begun_seed(str(place)) == 2**40


@pytest.mark.parametrize("told", ["{}", '{"options": {}}', "[1]", '"text"'])
def test_a_damaged_description_is_told(place, begin, told):
    place.mkdir()
    (place / "job.json").write_text(told)
    for ask in (begin, lambda: begun_seed(place)):
        with pytest.raises(StateError, match=r"job\.json (lacks|is damaged)"):
            ask()
    assert (place / "job.json").read_text() == told


def test_a_description_without_a_seed_is_told(place, begin):
    begin().folder.close()
    told = json.loads((place / "job.json").read_text())
    del told["options"]["seed"]
    (place / "job.json").write_text(json.dumps(told))
    with pytest.raises(StateError, match=r"job\.json lacks the seed"):
        begun_seed(place)


def test_a_clip_whose_report_is_gone_or_damaged_is_not_done(tmp_path, place, begin, report):
    out = tmp_path / "a.mp4"
    out.write_bytes(b"clip")
    work = begin(out=out)
    work.finish(report)
    (place / "report.json").write_text("{")
    assert work.finished() is None
    (place / "report.json").unlink()
    assert work.finished() is None


def test_seconds_of_waiting_are_the_keepers(begin):
    work = begin()
    work.keeper.write_s = 2.5
    assert work.write_s == 2.5


def test_a_clip_that_was_made_is_known_with_its_report(tmp_path, place, begin, report):
    out = tmp_path / "a.mp4"
    out.write_bytes(b"clip")
    work = begin(out=out)
    work.finish(report)
    assert json.loads((place / "report.json").read_text()) == json.loads(report.to_json())
    assert work.finished() == report
    work.folder.close()
    again = begin(out=out)
    assert again.finished() == report and "café" in again.finished().prompt
    again.folder.close()
    elsewhere = begin(out=tmp_path / "b.mp4")
    assert elsewhere.finished() is None
    elsewhere.folder.close()
    out.write_bytes(b"clap")
    assert begin(out=out).finished() is None


def test_a_clip_of_another_description_is_not_done(tmp_path, begin, report):
    out = tmp_path / "a.mp4"
    out.write_bytes(b"clip")
    work = begin(out=out)
    work.finish(report)
    work._description = replace(work._description, versions={})
    assert work.finished() is None


def test_a_folder_that_was_moved_meanwhile_costs_the_run_nothing(tmp_path, place, begin, report):
    out = tmp_path / "clip.mp4"
    work = begin(out=str(out))
    with work.kept():
        out.write_bytes(b"clip")
        place.rename(tmp_path / "elsewhere")
        told = f'the clip is made; asked for again it is made anew: cannot write "{place}'
        with pytest.warns(HGCVideoWarning, match=re.escape(told)):
            work.finish(report)
    assert out.read_bytes() == b"clip" and not place.exists()


def test_a_clip_that_is_gone_when_it_is_to_be_noted_is_a_fault(tmp_path, place, begin, report):
    work = begin(out=str(tmp_path / "clip.mp4"))
    with pytest.raises(StateError, match="was written and is gone"), work.kept():
        work.finish(report)


def test_a_run_without_a_clip_leaves_its_folder(place, begin, report):
    work = begin()
    work.finish(report)
    assert work.folder.read("done") == {"job": work._description.digest}
    assert work.finished() is None


def test_what_nobody_asked_for_is_removed_when_the_clip_is_made(tmp_path, begin, report):
    out = tmp_path / "a.mp4"
    work = begin(work=None, out=out)
    late(work)
    out.write_bytes(b"clip")
    work.finish(report)
    assert left(tmp_path) == ["a.mp4"]


def test_a_short_run_finishes_without_a_folder(tmp_path, begin, report):
    begin(work=None, out=tmp_path / "a.mp4").finish(report)
    assert left(tmp_path) == []


def test_the_clip_is_done_when_all_is_written(tmp_path, begin, report):
    work = begin(out=tmp_path / "a.mp4")
    (tmp_path / "a.mp4").write_bytes(b"clip")
    work.keeper._keep(lambda: {"step": 1})
    work.finish(report)
    assert not work.keeper.writer.busy and len(work.keeper.writer.writes) == 1


def test_a_state_that_cannot_be_told_costs_a_checkpoint_and_not_the_run(tmp_path, begin, report):
    """A decider of somebody else's may hold anything."""
    work = begin(out=tmp_path / "a.mp4")
    (tmp_path / "a.mp4").write_bytes(b"clip")
    told = "no checkpoint is written: a run cannot be kept whose state holds {1}"
    with pytest.warns(HGCVideoWarning, match=told):
        work.keeper._keep(lambda: {"decider": {1}})
    work.finish(report)
    assert work.keeper.writer.writes == []


def test_while_a_run_is_kept_the_folder_is_its_own(place, begin):
    work = begin()
    with work.kept():
        work.keeper._keep(lambda: {"step": 1})
        with pytest.raises(StateError):
            WorkFolder(place).open()
    assert not work.keeper.writer.busy
    other = WorkFolder(place)
    other.open()
    other.close()


@pytest.mark.usefixtures("stock_signals")
def test_a_signal_is_noted_while_a_run_is_kept(begin):
    work = begin()
    with work.kept():
        signal.raise_signal(signal.SIGTERM)
    assert work.keeper.interrupted


def test_a_run_that_is_stopped_at_once_says_how_to_go_on(place, begin):
    work = begin()
    with pytest.raises(Cancelled) as told, work.kept():
        raise KeyboardInterrupt
    assert str(told.value) == f"stopped at once; {how_to_go_on(place)}"
    assert told.value.__suppress_context__ and "job.json" in left(place)
    assert work.folder._lock.closed


def test_without_a_folder_ctrl_c_is_what_it_is(tmp_path, begin):
    work = begin(work=None, out=tmp_path / "a.mp4")
    with pytest.raises(KeyboardInterrupt), work.kept():
        raise KeyboardInterrupt


def test_a_run_that_is_cancelled_keeps_its_folder(place, begin):
    work = begin()
    with pytest.raises(Cancelled, match="mine"), work.kept():
        raise Cancelled("mine")
    assert "job.json" in left(place) and work.folder._lock.closed


@pytest.mark.parametrize("was_there", [False, True])
def test_a_run_that_is_refused_leaves_nothing(place, begin, was_there):
    if was_there:
        place.mkdir()
    work = begin()
    with pytest.raises(InputError, match="no"), work.kept():
        raise InputError("no")
    assert left(place) == ([] if was_there else None)


def test_a_run_that_is_refused_keeps_what_there_is(place, begin):
    work = begin()
    with pytest.raises(InputError), work.kept():
        work.keeper._keep(lambda: {"step": 1})
        raise InputError("no")
    assert "checkpoint-000001" in left(place), "what was being written is waited for"
    again = begin()
    with pytest.raises(InputError), again.kept():
        raise InputError("no")
    assert "checkpoint-000001" in left(place)


def test_a_run_that_was_begun_before_and_is_refused_stays(place, begin):
    begin().folder.close()
    with pytest.raises(InputError), begin().kept():
        raise InputError("no")
    assert "job.json" in left(place)


def test_a_fault_of_ours_leaves_the_folder(place, begin):
    work = begin()
    with pytest.raises(ZeroDivisionError), work.kept():
        raise ZeroDivisionError
    assert "job.json" in left(place) and work.folder._lock.closed


def test_a_clip_in_memory_that_cannot_be_kept_leaves_nothing(place, begin):
    with pytest.raises(InputError, match="work cannot keep this pose clip"):
        begin(control_video=POSE.astype(np.uint16))
    assert left(place) is None
