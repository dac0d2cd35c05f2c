"""Windows cover every frame, weigh to one, and move only where nothing is held for them."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgc_video.errors import InputError
from hgc_video.plan.cost import full_cost
from hgc_video.plan.memory.windows import Window, Windows, over_windows, shifts, windowed
from hgc_video.plan.presets import resolve
from tests.plan.policies.test_policies import tower


@st.composite
def clips(draw):
    length = draw(st.integers(1, 9))
    overlap = draw(st.integers(0, length - 1))
    scenes = draw(st.lists(st.integers(length, 3 * length + 1), max_size=4))
    if not scenes:
        return Windows(draw(st.integers(1, 60)), length, overlap)
    *cuts, num_frames = accumulate(scenes)
    return Windows(num_frames, length, overlap, tuple(cuts))


@given(clips(), st.booleans())
def test_every_frame_is_covered_once_as_fresh_and_weights_sum_to_one(clip, shifted):
    windows = clip.at(shifted)
    fresh = [f for w in windows for f in range(clip.num_frames)[w.fresh_frames]]
    assert fresh == list(range(clip.num_frames))
    totals = [0.0] * clip.num_frames
    for window, weights in zip(windows, clip.weights(windows), strict=True):
        assert window.length == len(weights) == min(clip.length, clip.num_frames)
        assert all(weight > 0 for weight in weights)
        for k, weight in enumerate(weights):
            totals[window.start + k] += weight
    assert totals == pytest.approx([1.0] * clip.num_frames)
    for one, next_one in pairwise(windows):
        assert one.start < next_one.start
        if next_one.start in clip.cuts:
            assert next_one.fresh == next_one.length, "nothing is shared across a cut"
            continue
        assert one.length - (next_one.start - one.start) >= clip.overlap


@given(clips())
def test_numbers_name_each_window_of_both_ways_once(clip):
    numbers = [w.window_id for w in (*clip.plain, *clip.shifted)]
    assert numbers == list(range(len(numbers)))


@given(clips(), st.booleans())
def test_no_window_reaches_across_a_cut(clip, shifted):
    for window in clip.at(shifted):
        inside = range(window.start + 1, window.start + window.length)
        assert not any(cut in inside for cut in clip.cuts)


def test_scenes_by_hand():
    clip = Windows(20, 4, 1, (4, 13))
    assert [w.start for w in clip.plain] == [0, 4, 7, 9, 13, 16]
    with pytest.raises(InputError, match="windows of 5 frames are not possible with scenes"):
        Windows(20, 5, 1, (4, 13))


def test_by_hand():
    clip = Windows(14, 8, 2)
    assert [(w.start, w.fresh) for w in clip.plain] == [(0, 8), (6, 6)]
    assert [(w.start, w.fresh) for w in clip.shifted] == [(0, 8), (3, 3), (6, 3)]
    assert clip.weights(clip.plain)[0][5:] == (1.0, 2 / 3, 1 / 3)
    assert [w.start for w in Windows(8, 8, 2).plain] == [0]
    assert [w.length for w in Windows(5, 8, 2).plain] == [5]


def test_windows_that_decide_by_themselves_are_apart():
    graph = tower()
    for policy, apart in (("guard", True), ("lossless", False), ("balanced", False)):
        clip = Windows(14, 8, 2).under(resolve(policy).schedule(graph, 25))
        assert clip.apart == apart and clip.weights(clip.plain) == Windows(14, 8, 2).weights(
            clip.plain
        )
        assert [(w.start, w.fresh) for w in clip.plain] == [(0, 8), (6, 8 if apart else 6)]
        assert [clip.controlnet_frames(moved) for moved in (False, True)] == (
            [16, 24] if apart else [14, 14]
        )
    spent = full_cost(graph, 2)
    totals = windowed(spent, Windows(14, 8, 2, apart=True), (False, True))
    assert totals["controlnet"] == spent.macs[0]["controlnet"] * (2 + 3)
    # Of few steps all are computed, whatever is decided.
    assert not Windows(14, 8, 2).under(resolve("guard").schedule(graph, 2)).apart


@pytest.mark.parametrize("values", [(0, 8, 2), (9, 0, 0), (9, 8, 8), (9, 8, -1)])
def test_impossible_windows_are_refused(values):
    with pytest.raises(InputError):
        Windows(*values)


def test_windows_move_only_where_nothing_is_held():
    graph = tower()
    assert shifts(resolve("off").schedule(graph, 4), graph) == (False, True, False, True)
    lossless = resolve("lossless").schedule(graph, 4)
    assert shifts(lossless, graph) == (False, True, False, True)
    cut = resolve("hgc:dense=0.25,interval=4,cut=1,gate=1").schedule(graph, 12)
    moved = shifts(cut, graph)
    keys = [i for i, step in enumerate(cut.steps) if step.label == "key"]
    assert [i for i in range(1, 12) if moved[i] != moved[i - 1]] == keys[1:]
    gated = resolve("hgc:dense=0.25,interval=4,cut=1,gate=0.5").schedule(graph, 12)
    after = shifts(gated, graph)[6:]
    assert len(set(after)) == 1  # cross-attention was fused for the windows of the gate


def test_cost_of_windows_is_that_of_each_but_the_controlnet_runs_once_a_frame():
    graph = tower()
    spent = full_cost(graph, 2)
    totals = windowed(spent, Windows(14, 8, 2), (False, True))
    assert totals["unet"] == spent.macs[0]["unet"] * (2 + 3)
    assert totals["controlnet"] == 2 * (spent.macs[0]["controlnet"] * 14 // 8)


def test_one_window_has_no_overlap_that_could_be_too_large():
    assert Windows(16, 16, overlap=20).plain == (Window(0, 0, 16, 16),)
    with pytest.raises(
        InputError, match=r"context_overlap=16 is .* context_length=16; give 0 to 15"
    ):
        Windows(17, 16, overlap=16)
    with pytest.raises(InputError, match="0 frames in windows of 16"):
        Windows(0, 16)


def test_macs_are_whole_numbers():
    step = {"unet": 10, "controlnet": 7}
    totals = over_windows([step], Windows(5, 3, 1))
    assert totals == {"unet": 20, "controlnet": 11, **{p: 0 for p in totals if p not in step}}
    assert all(isinstance(macs, int) for macs in totals.values())
