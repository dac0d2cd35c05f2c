"""When a run is kept: where it is due by a clock of our own, where it stops, and where it turns out long."""

from __future__ import annotations

import json
import os
import threading
import types
import warnings

import numpy as np
import pytest
import torch

from hgc_video.errors import Cancelled, HGCVideoWarning, InputError, StateError
from hgc_video.jobs.checkpoint import keeper as keeper_module
from hgc_video.jobs.checkpoint import shards
from hgc_video.jobs.checkpoint.keeper import FolderKeeper, how_to_go_on
from hgc_video.plan.checkpoints import macs_by_step, nbytes_by_step
from hgc_video.plan.memory.budget import Chunks, MemoryPlan, Peak
from hgc_video.plan.memory.windows import Windows
from hgc_video.plan.presets import resolve
from hgc_video.plan.run_plan import plan_run
from hgc_video.sampling.run_state import Position
from tests.plan.test_graph import ladder

CPU = torch.device("cpu")
MEMORY = MemoryPlan(2, 4, Chunks(2, 3, 4), Peak(10, 20), 30)


def run_plan(steps=6, preset="off"):
    return plan_run(resolve(preset), ladder(), Windows(4, 4), evaluations=steps, asked=steps)


def never():
    raise AssertionError("it was asked")


@pytest.fixture
def clock(monkeypatch):
    """The keeper's clock, which stands still until it is set."""
    told = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(keeper_module, "time", types.SimpleNamespace(monotonic=lambda: told.now))
    return told


@pytest.fixture
def folder(work):
    return work


class Run:
    """A run of steps of one second each, kept in a folder or begun when it is long."""

    def __init__(self, clock, folder, steps=6, every_s=2.5, *, at_once=True, windows=1):
        self.clock, self.steps, self.windows = clock, steps, windows
        self.keeper = FolderKeeper(lambda: folder, every_s, at_once=at_once)
        self.keeper.memory_plan(lambda: MEMORY)
        self.keeper.planned(run_plan(steps), 8)
        self.kept, self.state_s, self.is_slow = [], 0.0, False

    def offer(self, step, window=0):
        def state():
            self.kept.append(step if self.windows == 1 else (step, window))
            self.clock.now += self.state_s
            return {"step": step, "window": window}

        if not self.is_slow:
            self.keeper.wait()  # by this clock, writing takes no time
        self.keeper.offer(Position(step, self.steps, window, self.windows), state)

    def go(self, first=1, last=None, step_s=1.0):
        for step in range(first, (last or self.steps) + 1):
            self.clock.now += step_s
            self.offer(step)
        return self.kept


def checkpoints(folder):
    return sorted(path.name for path in folder.path.glob("checkpoint-*"))


@pytest.mark.parametrize(
    "told", [5, [], {}, {"schedule": "a"}, {"memory_plan": {}, "schedule": "a"}, {"memory_plan": 3}]
)
def test_a_damaged_plan_is_told(folder, told):
    """What was made by it goes on by no other one."""
    folder.write("plan", told)
    keeper = FolderKeeper(lambda: folder, 2.5, at_once=True)
    for asked in (lambda: keeper.memory_plan(never), lambda: keeper.planned(run_plan(), 8)):
        with pytest.raises(StateError, match=r"plan\.json is damaged; begin the run anew"):
            asked()
    assert keeper.memory_plan(lambda: MEMORY, again=True) == MEMORY


def test_the_command_that_goes_on():
    assert how_to_go_on("a/work") == "go on with: hgc-video resume a/work"


def test_a_keeper_has_its_folder_at_once_only_where_that_is_asked(folder):
    keeper = FolderKeeper(lambda: folder, 5.0, at_once=True)
    assert keeper.folder is folder and keeper.interrupted is False
    assert keeper.write_s == 0.0 and keeper.writer.writes == []
    assert FolderKeeper(never, 5.0, at_once=False).folder is None


def test_the_memory_plan_is_that_of_the_run_that_was_begun(folder):
    first = FolderKeeper(lambda: folder, 5.0, at_once=True)
    assert first.memory_plan(lambda: MEMORY) is MEMORY
    assert folder.read("plan") is None, "it is written with the schedule"
    first.planned(run_plan(), 8)
    told = folder.read("plan")
    assert set(told) == {"memory_plan", "schedule"} and len(told["schedule"]) == 64
    assert told["memory_plan"]["chunks"]["frames"] == 2 and told["memory_plan"]["budget"] == 30
    again = FolderKeeper(lambda: folder, 5.0, at_once=True)
    assert again.memory_plan(never) == MEMORY
    again.planned(run_plan(), 8)
    assert folder.read("plan") == told


def test_a_memory_plan_that_is_chosen_again_begins_the_run_anew(folder):
    keeper = FolderKeeper(lambda: folder, 5.0, at_once=True)
    keeper.memory_plan(lambda: MEMORY)
    keeper.planned(run_plan(), 8)
    keeper.stopped(Position(1, 6), lambda: {"a": torch.ones(3)})
    folder.keep_frames(0, np.zeros((1, 2, 2, 3), np.uint8))
    assert len(checkpoints(folder)) == 1
    other = MemoryPlan(1, 4, Chunks(), Peak(1, 2), None)
    assert keeper.memory_plan(lambda: other, again=True) is other
    assert [path.name for path in folder.path.iterdir()] == ["lock"]
    keeper.planned(run_plan(5), 8)
    assert FolderKeeper(lambda: folder, 5.0, at_once=True).memory_plan(never) == other


def test_a_plan_that_is_chosen_again_leaves_what_is_being_written(folder, monkeypatch):
    held, real = threading.Event(), os.fsync
    keeper = FolderKeeper(lambda: folder, 5.0, at_once=True)
    monkeypatch.setattr(os, "fsync", lambda handle: held.wait(30) and real(handle))
    keeper.offer(Position(1, 1), lambda: {"a": torch.ones(3)})
    assert keeper.writer.busy
    threading.Timer(0.02, held.set).start()
    keeper.memory_plan(lambda: MEMORY, again=True)
    assert not keeper.writer.busy and checkpoints(folder) == []


def test_without_a_folder_everything_is_chosen_and_nothing_kept():
    keeper = FolderKeeper(never, 0.0, at_once=False)
    for again in (False, True):
        assert keeper.memory_plan(lambda: MEMORY, again=again) is MEMORY
    keeper.planned(run_plan(), 8)
    assert keeper.newest(CPU) is None and keeper.frames(0, 1) is None
    keeper.stopped(Position(1, 6), never)
    keeper.keep_frames(0, np.zeros((1, 2, 2, 3), np.uint8))
    keeper.wait()
    assert keeper.writer.writes == [] and keeper._waiting == []


def test_where_no_memory_plan_was_asked_for_no_plan_is_written(folder):
    keeper = FolderKeeper(lambda: folder, 5.0, at_once=True)
    keeper.planned(run_plan(), 8)
    assert folder.read("plan") is None


def test_the_plan_tells_what_steps_cost_and_keep(folder):
    keeper, plan = FolderKeeper(lambda: folder, 5.0, at_once=True), run_plan(preset="fast")
    keeper.planned(plan, 9)
    assert keeper._nbytes == nbytes_by_step(plan, 9) != nbytes_by_step(plan, 8)
    assert keeper._macs == macs_by_step(plan)


@pytest.mark.parametrize("change", ["schedule", "moves", "windows"])
def test_another_schedule_is_refused(folder, change):
    from dataclasses import replace

    FolderKeeper(lambda: folder, 5.0, at_once=True)
    first = FolderKeeper(lambda: folder, 5.0, at_once=True)
    first.memory_plan(lambda: MEMORY)
    first.planned(run_plan(), 8)
    plan = run_plan(preset="fast")
    if change == "moves":
        plan = replace(run_plan(), moves=(True,) * 6)
    elif change == "windows":
        plan = replace(run_plan(), windows=Windows(4, 4, 1))
    again = FolderKeeper(lambda: folder, 5.0, at_once=True)
    again.memory_plan(never)
    with pytest.raises(StateError) as told:
        again.planned(plan, 8)
    assert str(told.value) == (
        f"the schedule of {plan.preset} changed since the run in {folder.path} was begun; "
        "begin it anew in another folder"
    )


def test_the_schedule_is_known_by_a_checksum_of_plan_moves_and_windows(folder):
    import hashlib

    keeper, plan = FolderKeeper(lambda: folder, 5.0, at_once=True), run_plan()
    keeper.memory_plan(lambda: MEMORY)
    keeper.planned(plan, 8)
    told = [plan.plan.upper_bound().to_dict(), plan.moves, str(plan.windows)]
    expected = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    assert folder.read("plan")["schedule"] == expected


def test_the_newest_state_is_given_as_plain_data(folder):
    keeper = FolderKeeper(lambda: folder, 5.0, at_once=True)
    assert keeper.newest(CPU) is None
    keeper.stopped(Position(1, 6), lambda: {"step": 1, "a": torch.arange(3)})
    told = keeper.newest(CPU)
    assert type(told) is dict and told["step"] == 1 and told["a"].tolist() == [0, 1, 2]


def test_what_was_not_on_the_host_comes_back_on_the_device_that_is_asked_for(folder):
    keeper = FolderKeeper(lambda: folder, 5.0, at_once=True)
    keeper.stopped(Position(1, 6), lambda: {"a": torch.arange(3)})
    state = folder.path / "checkpoint-000001" / "state.json"
    state.write_text(state.read_text().replace('"host": true', '"host": false'))
    from hgc_video.jobs.checkpoint.durable import _facts

    facts = {"state.json": _facts(state)}
    (state.parent / "COMPLETE").write_text(json.dumps(facts))
    assert keeper.newest(torch.device("meta"))["a"].device.type == "meta"


def test_a_run_is_kept_as_seldom_as_may_be_and_at_its_end(clock, folder):
    """Steps of 1 s, at most 2.5 s apart: every second one."""
    run = Run(clock, folder)
    assert run.go() == [2, 4, 6]
    run.keeper.wait()
    assert len(run.keeper.writer.writes) == 3 and checkpoints(folder)[-1] == "checkpoint-000003"
    assert run.keeper.newest(CPU) == {"step": 6, "window": 0}


def test_the_end_is_kept_however_short_the_run(clock, folder):
    assert Run(clock, folder, every_s=1000).go() == [6]


def test_a_run_is_kept_after_every_step_where_that_is_asked(clock, folder):
    assert Run(clock, folder, every_s=0).go() == [1, 2, 3, 4, 5, 6]


def test_a_run_that_goes_on_is_measured_from_there(clock, folder):
    """The first three steps cost this process nothing, and the wait before was no part of them."""
    run = Run(clock, folder, steps=9)
    clock.now += 50
    run.keeper.newest(CPU)
    assert run.go(first=4) == [5, 7, 9]


def test_the_clock_begins_when_the_run_is_planned(clock, folder):
    keeper = FolderKeeper(lambda: folder, 2.5, at_once=True)
    clock.now += 50
    keeper.planned(run_plan(), 8)
    assert (keeper._began, keeper._last, keeper._step_began) == (1050.0,) * 3
    clock.now += 50
    keeper.newest(CPU)
    assert (keeper._began, keeper._last, keeper._step_began) == (1100.0,) * 3


def test_seconds_that_the_run_waited_are_told_and_do_not_count_as_its_speed(clock, folder):
    run = Run(clock, folder)
    run.state_s = 10.0
    assert run.go() == [2, 4, 6] and run.keeper.write_s == 30.0
    assert clock.now == 1036.0


def test_waiting_for_the_writer_counts_as_waiting(clock, folder):
    keeper, real = FolderKeeper(lambda: folder, 5.0, at_once=True), clock.now

    def write(going_on):
        clock.now = real + 3
        return 1

    go = threading.Event()
    keeper.writer.begin(lambda _: go.wait(30) and write(_))
    threading.Timer(0.02, go.set).start()
    keeper.wait()
    assert keeper.write_s == 3.0
    keeper.wait()
    assert keeper.write_s == 3.0


def test_windows_of_a_long_step_are_places_to_keep_it_at(clock, folder):
    """Windows of 1 s, four in a step; it is kept where the next window would end too late."""
    run = Run(clock, folder, steps=3, windows=4)
    for step in range(3):
        for window in range(1, 5):
            clock.now += 1
            run.offer(step + window // 4, window % 4)
    assert run.kept == [(0, 2), (1, 0), (1, 2), (2, 0), (2, 2), (3, 0)]


def test_a_window_that_ends_just_in_time_is_waited_for(clock, folder):
    run = Run(clock, folder, steps=3, every_s=2.0, windows=4)
    clock.now += 1
    run.offer(0, 1)
    assert run.kept == []
    clock.now += 0.01
    run.offer(0, 1)
    assert run.kept == [(0, 1)]


def test_within_a_step_the_speed_is_told_by_the_windows_that_are_done(clock, folder):
    """Of two windows, a step and a half were made when this process began: what it made is half a step."""
    run = Run(clock, folder, steps=9, every_s=1000, windows=2)
    clock.now += 1
    run.offer(2, 0)
    whole = sum(macs_by_step(run_plan(9))[:1])
    assert run.keeper._first == 1.5 * whole
    assert run.keeper._macs_per_s(Position(2, 9, 0, 2), clock.now) == whole / 2
    assert run.keeper._macs_per_s(Position(2, 9, 1, 2), clock.now) == whole
    assert run.keeper._made(0.25) == whole / 4 and run.keeper._made(9.0) == 9 * whole


def test_a_speed_is_never_nothing_nor_without_end(clock, folder):
    run = Run(clock, folder)
    run.keeper._first = 0
    assert run.keeper._macs_per_s(Position(0, 6), clock.now + 4) == 1 / 4
    assert run.keeper._macs_per_s(Position(0, 6), clock.now) == 1 / 1e-9


def test_while_one_state_is_written_the_next_waits_for_its_turn(clock, folder, monkeypatch):
    """Kept after step 2, whose write does not end; after 5 s, twice the most, the run waits for it."""
    held, real = threading.Event(), os.fsync
    run = Run(clock, folder, steps=12)
    run.is_slow = True
    monkeypatch.setattr(os, "fsync", lambda handle: held.wait(30) and real(handle))
    assert run.go(last=6) == [2]
    assert run.keeper.writer.busy
    threading.Timer(0.05, held.set).start()
    clock.now += 1
    run.offer(7)
    assert run.kept == [2, 7]
    run.keeper.wait()
    assert len(run.keeper.writer.writes) == 2


def test_what_is_being_written_is_left_when_it_is_abandoned(clock, folder, monkeypatch):
    """In the middle of its files, the first of which waits for the disk."""
    held, real, begun = threading.Event(), os.fsync, threading.Event()
    monkeypatch.setattr(shards, "_SHARD_NBYTES", 1)
    monkeypatch.setattr(os, "fsync", lambda handle: begun.set() or (held.wait(30) and real(handle)))
    keeper = FolderKeeper(lambda: folder, 5.0, at_once=True)
    keeper.offer(Position(1, 1), lambda: {"a": torch.ones(3), "b": torch.zeros(4)})
    assert begun.wait(30)
    threading.Timer(0.02, held.set).start()
    keeper.writer.abandon()
    assert keeper.writer.writes == [] and checkpoints(folder) == []


def test_an_interrupted_run_is_kept_and_says_how_to_go_on(clock, folder):
    run = Run(clock, folder, every_s=1000)
    run.go(last=1)
    run.keeper.interrupted = True
    with pytest.raises(Cancelled) as told:
        run.offer(2)
    assert str(told.value) == f"stopped after 2 of 6 steps; {how_to_go_on(folder.path)}"
    assert run.kept == [2] and not run.keeper.writer.busy
    assert folder.newest(CPU)["step"] == 2


def test_an_interrupted_run_without_a_folder_goes_on(clock):
    keeper = FolderKeeper(never, 5.0, at_once=False)
    keeper.planned(run_plan(), 8)
    keeper.interrupted = True
    clock.now += 1
    keeper.offer(Position(1, 6), never)


def test_a_run_that_its_caller_stops_is_kept(clock, folder):
    keeper = FolderKeeper(lambda: folder, 1000.0, at_once=True)
    keeper.stopped(Position(2, 6), lambda: {"step": 2})
    assert not keeper.writer.busy and folder.newest(CPU) == {"step": 2}


def test_a_run_of_more_than_two_minutes_is_kept_although_nobody_asked(clock, folder):
    run = Run(clock, folder, every_s=30, at_once=False)
    run.go(last=1, step_s=20.0)
    assert run.keeper.folder is None and run.kept == [], "6 times 20 s are no more than 120 s"
    clock.now += 21.0
    run.offer(2)
    assert run.keeper.folder is folder and folder.read("plan")["memory_plan"]["level"] == 2
    assert len(folder.read("plan")["schedule"]) == 64
    assert run.kept == [2]


def test_a_run_that_is_done_is_not_kept_because_it_was_long(clock):
    keeper = FolderKeeper(never, 30.0, at_once=False)
    keeper.planned(run_plan(1), 8)
    clock.now += 500
    keeper.offer(Position(1, 1), never)
    assert keeper.folder is None


def test_a_long_run_that_cannot_be_kept_says_so_once_and_goes_on(clock):
    asked = []

    def begin():
        asked.append(1)
        raise StateError("no room")

    keeper = FolderKeeper(begin, 30.0, at_once=False)
    keeper.planned(run_plan(), 8)
    clock.now += 500
    with pytest.warns(HGCVideoWarning, match=r"^this run is not kept: no room$") as told:
        keeper.offer(Position(1, 6), never)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clock.now += 500
        keeper.offer(Position(2, 6), never)
    assert asked == [1]


def test_what_cannot_be_written_is_told_and_the_run_goes_on(folder):
    keeper = FolderKeeper(lambda: folder, 5.0, at_once=True)

    def full(going_on):
        raise InputError("the disk is full")

    keeper.writer.begin(full)
    with pytest.warns(
        HGCVideoWarning, match="^no checkpoint is written: the disk is full$"
    ) as told:
        keeper.wait()
    assert len(told) == 1
    for ask in (
        lambda: keeper.offer(Position(0, 6, 1, 2), never),
        lambda: keeper.keep_frames(0, np.zeros((1, 2, 2, 3), np.uint8)),
    ):
        keeper._every_s = 1e9
        keeper.writer.begin(full)
        keeper.writer._thread.join()
        with pytest.warns(HGCVideoWarning, match="no checkpoint is written: the disk is full"):
            ask()


def test_a_fault_of_ours_is_not_hidden(folder):
    keeper = FolderKeeper(lambda: folder, 5.0, at_once=True)
    keeper.writer.begin(lambda _: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        keeper.wait()


def frames(at):
    return np.full((2, 4, 4, 3), at, np.uint8)


def test_decoded_frames_are_kept_together_when_it_is_time(clock, folder):
    run = Run(clock, folder)
    keeper = run.keeper
    for start, passed in ((0, 2.0), (2, 0.25), (4, 0.25)):
        clock.now += passed
        keeper.keep_frames(start, frames(start))
        keeper.wait()
        assert len(keeper.writer.writes) == (start == 4), "2.5 s have passed"
    assert keeper.writer.writes[0][1] == 3 * 96
    for start in (0, 2, 4):
        assert np.array_equal(keeper.frames(start, 2), frames(start))
    assert keeper.frames(6, 2) is None and keeper.frames(0, 1) is None
    clock.now += 2.4
    keeper.keep_frames(6, frames(6))
    keeper.wait()
    assert keeper.frames(6, 2) is None, "what was written begins the time anew"
    clock.now += 0.2
    keeper.keep_frames(8, frames(8))
    keeper.wait()
    assert [nbytes for _, nbytes in keeper.writer.writes] == [288, 192]


def test_frames_wait_while_something_is_written(clock, folder):
    go, run = threading.Event(), Run(clock, folder)
    run.keeper.writer.begin(lambda _: go.wait(30) and 1)
    clock.now += 4
    run.keeper.keep_frames(0, frames(0))
    assert run.keeper.writer.busy and run.keeper.writer.writes == []
    go.set()
    run.keeper.wait()
    run.keeper.keep_frames(2, frames(2))
    run.keeper.wait()
    assert [nbytes for _, nbytes in run.keeper.writer.writes] == [1, 192]


def test_a_run_that_is_interrupted_while_frames_are_decoded_keeps_them(clock, folder):
    run = Run(clock, folder)
    run.keeper.interrupted = True
    with pytest.raises(Cancelled) as told:
        run.keeper.keep_frames(16, frames(3))
    assert str(told.value) == (
        f"stopped after all steps, and some frames decoded; {how_to_go_on(folder.path)}"
    )
    assert np.array_equal(folder.frames(16, 2), frames(3))


def begun_anew(run):
    """The run begins again, as after memory ran out."""
    run.kept.clear()
    run.keeper.memory_plan(lambda: MEMORY, again=True)
    run.keeper.planned(run_plan(run.steps), 8)
    assert run.keeper.newest(CPU) is None


def test_a_run_that_begins_anew_is_kept_as_often_as_one_that_never_did(clock, folder):
    """Its speed is that of since then, whatever step the first try had come to and however long it waited."""
    run = Run(clock, folder, steps=12)
    fresh = list(run.go())
    assert fresh == [2, 4, 6, 8, 10, 12]
    begun_anew(run)
    run.go(first=7, last=8)
    begun_anew(run)
    assert run.go() == fresh, "the first try had gone on at step 7"
    begun_anew(run)
    run.state_s = 10.0
    run.go(last=4)
    assert run.keeper.write_s >= 10.0
    run.state_s = 0.0
    begun_anew(run)
    assert run.go() == fresh, "and had waited for its checkpoints"
