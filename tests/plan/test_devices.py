"""Windows over several devices: each has its own ones, and gets all that others add to its frames."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from hgc_video.cli import app
from hgc_video.errors import InputError
from hgc_video.forecast import forecast
from hgc_video.plan.cost import full_cost
from hgc_video.plan.devices import DevicePlan, DeviceSplit, plan_devices
from hgc_video.plan.memory.throughput import Throughput
from hgc_video.plan.memory.windows import Windows
from hgc_video.plan.presets import resolve
from hgc_video.plan.run_plan import plan_run
from tests.plan.memory.test_windows import clips
from tests.plan.policies.test_policies import tower

RATES = Throughput(1e3, 1e2, "told")


@st.composite
def splits(draw):
    windows = draw(clips())
    assume(len(windows.plain) > 1)
    moves = draw(st.sampled_from([(), (False, False), (False, True)]))
    size = draw(st.integers(1, min(4, len(windows.plain))))
    return DeviceSplit(windows, size, moves, draw(st.booleans()))


@given(splits(), st.booleans())
def test_every_window_has_one_process(split, shifted):
    ours = [split.of(rank, shifted) for rank in range(split.size)]
    ids = [window.window_id for windows in ours for window in windows]
    assert ids == [window.window_id for window in split.windows.at(shifted)]
    for windows in ours:
        assert windows[0].fresh == windows[0].length
    last = [frame for rank in range(split.size) for frame in split.last(rank)]
    assert last == list(range(split.windows.num_frames))


@given(splits(), st.data())
def test_a_process_has_what_its_windows_read_and_gets_what_others_add_to_it(split, data):
    shifted = data.draw(st.sampled_from([False, *split.moves]))
    for rank in range(split.size):
        held = split.held(rank)
        for way in {False, *split.moves}:
            assert {
                f for w in split.of(rank, way) for f in range(w.start, w.start + w.length)
            } <= set(held)
        assert set(split.last(rank)) <= set(held)
        adds = {rank: set(split.covered(rank, shifted))}
        for other in range(split.size):
            if other != rank:
                adds[other] = set(split.sent(other, rank, shifted))
        for window in split.windows.at(shifted):
            (owner,) = (r for r in range(split.size) if window in _as_planned(split, r, shifted))
            read = set(range(split.windows.num_frames)[window.frames]) & set(held)
            assert read <= adds[owner]


def _as_planned(split, rank, shifted):
    ids = {window.window_id for window in split.of(rank, shifted)}
    return [window for window in split.windows.at(shifted) if window.window_id in ids]


def test_by_hand():
    """Windows 0-5, 4-9, 8-13, 12-17: two for each of two processes, which share frames 8 and 9."""
    split = DeviceSplit(Windows(18, 6, 2), 2)
    assert [list(split.held(rank)) for rank in (0, 1)] == [list(range(10)), list(range(8, 18))]
    assert split.sent(0, 1, False) == split.sent(1, 0, False) == range(8, 10)
    assert split.frames_moved(0, False) == (2, 2)
    assert (split.last(0), split.last(1)) == (range(8), range(8, 18))
    assert split.frames_gathered() == 10 and split.frames_again(False) == 2
    whole = replace(split, whole=True)
    assert whole.sent(1, 0, False) == range(8, 18) and whole.frames_gathered() == 0


def test_the_plan_of_two_devices_by_hand():
    graph, windows, steps = tower(), Windows(18, 6, 2), 3
    plan = plan_run(resolve("off"), graph, windows, evaluations=steps, asked=steps)
    plan = replace(plan, moves=())
    told = plan_devices(plan, 2, RATES)
    frame = graph.by_name[graph.output].nbytes // 6
    one = full_cost(graph, 1).macs[0]
    assert told.windows == (2, 2)
    assert told.exchanged_nbytes == (4 * frame,) * steps and told.gathered_nbytes == 10 * frame
    assert told.again_macs == steps * (one["controlnet"] * 2 // 6)
    assert told.exchange_s == (steps * 4 * frame + 10 * frame) / 100
    busiest = steps * (2 * one["unet"] + one["controlnet"] * 10 // 6)
    assert told.busiest_s == pytest.approx(busiest / 1000 + told.exchange_s)
    over_two = replace(plan, devices=told)
    assert sum(over_two.macs_by_part.values()) == sum(plan.macs_by_part.values()) + told.again_macs


def uncached(windows, moves):
    """The plan of an uncached run on the tower, of which a frame of a prediction has 100 bytes."""
    graph = tower()
    last = replace(graph.layers[-1], nbytes=100 * windows.plain[0].length)
    graph = replace(graph, layers=(*graph.layers[:-1], last))
    plan = plan_run(resolve("off"), graph, windows, evaluations=len(moves), asked=len(moves))
    return replace(plan, moves=moves)


def test_windows_that_move_are_costed_as_they_stand_at_each_step():
    """Windows from 0, 4, 8, 12, and moved from 0, 2, 6, 10, 12, over three processes: 0-5 4-9 8-17, and moved
    0-5 2-11 10-17. The middle one holds 2-11, and its neighbours read of what it predicts."""
    moves = (False, True, False)
    split = DeviceSplit(Windows(18, 6, 2), 3, moves)
    assert [split.held(rank) for rank in range(3)] == [range(6), range(2, 12), range(8, 18)]
    assert [split.frames_moved(rank, False) for rank in range(3)] == [(4, 2), (4, 8), (4, 2)]
    assert [split.frames_moved(rank, True) for rank in range(3)] == [(4, 4), (8, 6), (2, 4)]
    assert (split.frames_again(False), split.frames_again(True)) == (4, 6)
    plan = uncached(split.windows, moves)
    one, told = full_cost(plan.graph, 1).macs[0], plan_devices(plan, 3, RATES)
    assert told.windows == (1, 1, 2)
    assert told.exchanged_nbytes == (1200, 1400, 1200) and told.gathered_nbytes == 1400
    assert told.exchange_s == (3800 + 1400) / 100, "of the middle one, and what is gathered"
    assert told.again_macs == sum(one["controlnet"] * n // 6 for n in (4, 6, 4))
    busiest = 6 * one["unet"] + sum(one["controlnet"] * n // 6 for n in (10, 8, 10))
    assert told.busiest_s == pytest.approx(busiest / 1000 + told.exchange_s)
    assert told.one_device_s == sum(plan.macs_by_part.values()) / 1000
    assert told.rates == str(RATES)
    whole = plan_devices(plan, 3, RATES, whole=True)
    assert whole.exchanged_nbytes == (2600, 2800, 2600) and whole.gathered_nbytes == 0


def test_one_device_exchanges_nothing_and_is_as_fast_as_itself():
    told = plan_devices(uncached(Windows(6, 6), (False, False)), 1, RATES)
    assert (told.windows, told.nbytes, told.again_macs, told.speedup) == ((1,), 0, 0, 1.0)


def test_a_plan_of_devices_in_words_and_as_data():
    nbytes = (2**20, 3 * 2**20)
    told = DevicePlan(3, (1, 1, 2), nbytes, 2**19, 7, 0.25, 2.5, 5.0, "4 TMACs/s")
    assert str(told) == (
        "3, with 1, 1, 2 windows: at most 3 MiB exchanged a step, 4.5 MiB in all, 0.25 s of 2.5 s; one "
        "device takes 5 s (2.00 times as long), at 4 TMACs/s"
    )
    assert told.to_dict() == {
        "size": 3, "windows": (1, 1, 2), "exchanged_nbytes": nbytes, "gathered_nbytes": 2**19,
        "again_macs": 7, "exchange_s": 0.25, "busiest_s": 2.5, "one_device_s": 5.0, "rates": "4 TMACs/s",
        "nbytes": 9 * 2**19, "speedup": 2.0,
    }  # fmt: skip


def test_windows_that_move_take_more_exchange_and_no_more_owners():
    still, moving = (
        forecast(model="animatediff-sd15", num_frames=64, preset=preset, devices=2).devices
        for preset in ("turbo", "off")
    )
    assert 0 < still.nbytes < moving.nbytes
    assert 1.8 < moving.speedup < 2 and moving.exchange_s < 0.01 * moving.busiest_s


def test_plan_shows_the_exchange():
    arguments = ["plan", "--model", "animatediff-sd15", "--num-frames", "64", "--devices", "2"]
    text = CliRunner().invoke(app, arguments).stdout
    assert "devices 2, with 2, 3 windows: at most" in text and "exchanged a step" in text
    slower = CliRunner().invoke(app, [*arguments, "--throughput", "1,1", "--json"])
    told = json.loads(slower.stdout)["devices"]
    assert told["nbytes"] == sum(told["exchanged_nbytes"]) + told["gathered_nbytes"] > 0
    assert told["one_device_s"] > 1000


@pytest.mark.parametrize(("frames", "says"), [(64, "5 windows; give 1 to 5"), (16, "one window")])
def test_more_devices_than_windows_are_refused(frames, says):
    with pytest.raises(InputError, match=says):
        forecast(model="animatediff-sd15", num_frames=frames, devices=6)


@pytest.mark.parametrize(
    ("frames", "size", "says"),
    [
        (10, 3, "2 windows; give 1 to 2"),
        (6, 2, "one window; give 1,"),
        (18, 0, "4 windows; give 1 to 4"),
    ],
)
def test_a_split_has_a_window_for_every_process(frames, size, says):
    with pytest.raises(InputError) as told:
        DeviceSplit(Windows(frames, 6, 2), size)
    assert f"devices={size} is not possible" in str(told.value) and says in str(told.value)
    assert "shorter windows (context_length)" in str(told.value)


def test_a_throughput_is_told_with_its_source():
    assert str(Throughput(4.5e13, 2e10, "measured")) == "45 TMACs/s and 20 GB/s, measured"
