"""People told apart from frame to frame, gaps and movements, on drawn points."""

from __future__ import annotations

import numpy as np
import pytest

from hgc_video.errors import InputError
from hgc_video.media.control import Placement
from hgc_video.preprocess.base import Estimates
from hgc_video.preprocess.people import apart, bridged, smoothed, tracks
from hgc_video.preprocess.pose import PosePreprocessor

pytest.importorskip("scipy", reason='needs pip install "hgc_video[pose]"')

SHAPE = np.random.default_rng(0).uniform(0, 1, (18, 2)) * (40, 100)


def person(x, y=0.0, size=1.0, n=18):
    """Points (n 4) of somebody at x, y."""
    points = np.zeros((n, 4))
    points[:18, :2] = SHAPE * size + (x, y)
    points[:18, 3] = 1
    return points


def frames(*people):
    return [np.stack(one) if one else np.zeros((0, 18, 4)) for one in people]


def places(track):
    """x of a track's first joint in each frame; None where the person is not seen."""
    return [round(p[0, 0] - SHAPE[0, 0]) if p[:, 3].max() else None for p in track]


def test_two_who_pass_keep_their_tracks_whatever_their_order():
    found = frames(*([person(10 * k), person(90 - 10 * k, 40)][:: (-1) ** k] for k in range(10)))
    one, two = tracks(found, 6)
    assert sorted([places(one), places(two)]) == [
        list(range(0, 100, 10)),
        list(range(90, -10, -10)),
    ]


def test_somebody_who_comes_back_soon_is_the_same_and_late_is_another():
    found = frames([person(0)], [], [], [person(9)], [], [], [], [], [person(9)])
    assert [places(track) for track in tracks(found, 3)] == [
        [0, None, None, 9, *[None] * 5], [*[None] * 8, 9],
    ]  # fmt: skip
    assert len(tracks(found, 4)) == 1
    far = frames([person(0)], [person(500)])
    assert len(tracks(far, 6)) == 2, "nobody jumps across the picture"


def test_one_found_twice_is_one():
    assert len(apart([person(0), person(3), person(200)])) == 2


def test_short_gaps_are_bridged_and_elsewhere_nobody_is():
    track = np.zeros((12, 18, 4))
    for frame, x in ((2, 1), (5, 4), (10, 5)):
        track[frame] = person(x)
    made, gaps = bridged(track, 3)
    assert places(made) == [None, None, 1, 2, 3, 4, None, None, None, None, 5, None]
    assert np.flatnonzero(gaps).tolist() == [3, 4]


def test_a_hand_that_is_missed_is_bridged_with_itself_alone():
    track = np.stack([person(0, n=130)] * 5)
    for frame in (0, 2):
        track[frame, 18:39] = [frame, 0, 0, 1]
    made, gaps = bridged(track, 1)
    assert made[:, 18, 0].tolist() == [0, 1, 2, 0, 0] and made[:, 18, 3].tolist() == [1, 1, 1, 0, 0]
    assert not gaps.any(), "the person was there all the time"


def test_smoothing_takes_noise_and_keeps_speed():
    noise = np.random.default_rng(1).normal(0, 2, (40, 18, 2))
    true = np.stack([person(5 * k) for k in range(40)])
    seen = true.copy()
    seen[..., :2] += noise
    seen[20:25] = 0
    made = smoothed(seen, 7)
    shown = made[..., 3].max(1) > 0
    error = np.abs(made - true)[shown, :, :2].mean() / np.abs(noise)[shown].mean()
    assert error < 0.75 and np.flatnonzero(~shown).tolist() == list(range(20, 25))
    assert np.allclose(smoothed(true, 7), true), "a straight movement is left as it is"
    assert np.array_equal(smoothed(seen, 3), seen), "too short a window smooths nothing"


class Given(PosePreprocessor):
    """Finds what it is told"""

    name = "given"

    def require(self, offline=False):
        pass

    def made_by(self):
        return {}

    def estimates(self, frames, fps):
        yield from frames


class Held(list):
    def read(self, start=0):
        return iter(self[start:])


def drawn(found: Estimates, **given):
    place = Placement(100, 200, 100, 200)
    made = Given(**given).drawn(Held(found), place, 12)
    return made, [frame.max() > 0 for frame in made.frames(0)]


def test_what_is_drawn_is_counted():
    found = frames([], [person(0)], [], [person(5), person(120)], [person(9)], [])
    made, shown = drawn(found)
    assert (made.num_people, made.num_bridged, made.num_empty) == (2, 1, 2)
    assert shown == [False, True, True, True, True, False]
    made, shown = drawn(found, gap=0, shortest=0.15)
    assert (made.num_people, shown) == (1, [False, False, False, True, True, False]), (
        "short ones are ghosts"
    )
    assert drawn(found, max_people=1)[0].num_people == 1
    with pytest.raises(InputError, match="no person found in any of the 3 frames"):
        drawn(frames([], [], []))


def test_frames_are_drawn_from_any_on():
    found = frames(*([person(10 * k)] for k in range(6)))
    made, _ = drawn(found)
    every = np.stack(list(made.frames(0)))
    assert np.array_equal(np.stack(list(made.frames(4))), every[4:])
