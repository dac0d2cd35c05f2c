"""Timestamps turned into a constant rate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgc_video.media.timeline import make_timeline


@pytest.mark.parametrize("fps", [8, 23.976, 24, 29.97, 60, 120])
def test_even_frames_keep_their_number_and_the_declared_rate(fps):
    for exact in (np.arange(300) / fps, np.round(np.arange(300) / fps, 3)):
        line = make_timeline(exact.tolist(), fps)
        assert line.fps == fps
        assert line.shown == tuple(range(300))


def test_a_declared_rate_that_the_timestamps_deny_is_not_taken():
    line = make_timeline([i / 24 for i in range(48)], 60)
    assert line.fps == pytest.approx(24)
    assert line.shown == tuple(range(48))


def test_a_frame_that_stays_is_repeated_also_the_last_one():
    line = make_timeline([0, 0.1, 0.2, 0.5, 0.6], 10, last_seconds=0.3)
    assert (line.fps, line.shown) == (10, (0, 1, 2, 2, 2, 3, 4, 4, 4))


def test_two_frames_of_nearly_one_time_set_no_rate():
    line = make_timeline([*(i / 30 for i in range(60)), 2.0, 2.0001, 3.0], 30)
    assert line.fps == pytest.approx(30)


def test_one_frame_and_frames_at_any_start():
    assert make_timeline([7.0], None, last_seconds=0.5).fps == 2
    assert make_timeline([7.0], None).shown == (0,)
    assert make_timeline([7.0, 7.5, 8.0], None).fps == 2


@given(st.lists(st.floats(0.01, 2), min_size=1, max_size=60))
def test_at_every_tick_the_frame_nearest_in_time_is_shown(intervals):
    times = np.cumsum([0, *intervals])
    line = make_timeline(times.tolist(), None)
    assert list(line.shown) == sorted(line.shown)
    assert 0 < line.fps <= 240
    for tick, shown in enumerate(line.shown):
        late = times[shown] - tick / line.fps
        assert late <= 0.51 / line.fps + 1e-6 + 0.01 * tick / line.fps
        if shown + 1 < len(times):
            assert times[shown + 1] >= (tick - 0.51) / line.fps * 0.99 - 1e-6
